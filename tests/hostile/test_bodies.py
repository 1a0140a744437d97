"""Bodies that are too large, too slow, too deep, or from nobody who may send one."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.hostile.conftest import KEY, Service
from tests.hostile.pictures import encoded

pytestmark = pytest.mark.xdist_group("hostile")

BODY_BYTES = 300_000_000
# What may be under way when the answer comes: buffers of two sockets and of the server.
TAKEN_AT_MOST = 10_000_000


def send_all_it_takes(service: Service, head: str, piece: bytes) -> tuple[bytes, int]:
    """Send a body until the server closes; gives its answer and how many bytes it took."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        # Small, so that what the system takes on the server's behalf hardly counts.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        connection.sendall(f"{head}\r\n\r\n".encode())
        answer = bytearray()
        answered = threading.Event()

        def listen() -> None:
            try:
                while received := connection.recv(65_536):
                    answer.extend(received)
                    if b"\r\n\r\n" in answer:
                        answered.set()
            except ConnectionError:
                pass
            answered.set()

        listener = threading.Thread(target=listen)
        listener.start()
        sent = 0
        try:
            while sent < BODY_BYTES:
                connection.sendall(piece)
                sent += len(piece)
        except (ConnectionError, TimeoutError):
            pass
        answered.wait(60)
        listener.join(60)
    return bytes(answer), sent


@pytest.mark.parametrize("key", [None, "wrong", ""])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/images", "/imports", "/projects"])
def test_a_stranger_s_body_is_refused_before_it_is_read(
    service: Service, path: str, chunked: bool, key: str | None
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x"
    if key is not None:
        head += f"\r\nAuthorization: Bearer {key}"
    head += "\r\nTransfer-Encoding: chunked" if chunked else f"\r\nContent-Length: {BODY_BYTES}"
    piece = b"10000\r\n" + bytes(65_536) + b"\r\n" if chunked else bytes(65_536)
    answer, sent = send_all_it_takes(service, head, piece)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert sent < TAKEN_AT_MOST


def test_a_body_that_is_too_large_is_refused_by_its_length(service: Service) -> None:
    head = (
        "POST /projects HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Length: {BODY_BYTES}"
    )
    answer, sent = send_all_it_takes(service, head, bytes(65_536))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert sent < TAKEN_AT_MOST


def bodies() -> Iterator[tuple[str, str, set[int]]]:
    yield "deep lists", "[" * 1_000_000, {400}
    yield "deep objects", '{"a":' * 500_000, {400}
    yield "closed deep lists", "[" * 100_000 + "]" * 100_000, {400}
    yield "many values", f"[{'[],' * 1_000_000}0]", {413}
    yield "many unknown fields", json.dumps({f"f{i}": 0 for i in range(90_000)}), {422}
    yield "many wrong items", json.dumps({"name": "x", "classes": [0] * 90_000}), {422}
    yield "one long text", json.dumps({"name": "x" * 3_000_000, "classes": ["c"]}), {422}
    yield "a long key", json.dumps({"k" * 3_000_000: 1}), {422}
    yield "a long number", f'{{"name": {"9" * 100_000}}}', {400, 422}
    yield "not a number", '{"name": "x", "classes": ["c"], "validation_images": NaN}', {400, 422}
    yield "infinity", '{"name": "x", "classes": ["c"], "validation_images": 1e999}', {400, 422}
    yield "the same key twice", '{"name": 1, "name": 2}', {422}
    yield "no UTF-8", '{"name": "\udcff"}', {400}


@pytest.mark.parametrize(
    ("body", "statuses"),
    [pytest.param(body, statuses, id=name) for name, body, statuses in bodies()],
)
def test_a_hostile_json_body_is_refused_however_many_come_at_once(
    service: Service, body: str, statuses: set[int]
) -> None:
    content = body.encode("utf-8", "surrogateescape")
    headers = {"content-type": "application/json"}

    def send(_: int) -> int:
        answer = service.client.post("/projects", content=content, headers=headers)
        assert len(answer.content) < 200_000
        return answer.status_code

    with ThreadPoolExecutor(8) as senders:
        assert set(senders.map(send, range(8))) <= statuses


@pytest.mark.parametrize(
    "box",
    [
        '{"class": "car", "x1": NaN, "y1": 1, "x2": 5, "y2": 5}',
        '{"class": "car", "x1": 1, "y1": 1, "x2": 1e999, "y2": 5}',
        '{"class": "car", "x1": 1, "y1": 1, "x2": 1e300, "y2": 5}',
        '{"class": "c\\u0000r", "x1": 1, "y1": 1, "x2": 5, "y2": 5}',
        '{"class": "\\ud800", "x1": 1, "y1": 1, "x2": 5, "y2": 5}',
        '{"class": "car", "x1": "1", "y1": 1, "x2": 5, "y2": 5}',
        "[]",
        ", ".join(['{"class": "car", "x1": 1, "y1": 1, "x2": 5, "y2": 5}'] * 10_001),
        ", ".join(['{"class": 1}'] * 10_000),
    ],
)
def test_a_hostile_annotation_is_refused(service: Service, box: str) -> None:
    (item,) = service.upload(service.new_project(), {"a.png": encoded("PNG")})
    answer = service.client.put(
        f"/images/{item['id']}/annotations",
        content=f'{{"version": 0, "boxes": [{box}]}}',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 422
    assert len(answer.content) < 200_000


def form(*parts: str, end: str = "--b--\r\n") -> bytes:
    return "".join(f"--b\r\n{part}\r\n" for part in parts).encode() + end.encode()


FIELD = 'Content-Disposition: form-data; name="{}"\r\n\r\n{}'


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(form(*[FIELD.format("project", "x")] * 10_000), 413, id="many fields"),
        pytest.param(form(*[FIELD.format(i, "x") for i in range(100)]), 413, id="fields"),
        pytest.param(form(FIELD.format("project", "x" * 100_000)), 413, id="a long field"),
        pytest.param(form(FIELD.format("n" * 100_000, "x")), 400, id="a long header"),
        pytest.param(form("\r\n".join(f"H{i}: x" for i in range(999))), 400, id="many headers"),
        pytest.param(form(FIELD.format("project", "x"), end=""), 400, id="no end"),
        pytest.param(form("X: y\r\n\r\nz"), 400, id="no name"),
        pytest.param(bytes(1_000_000), 400, id="no form"),
        pytest.param(
            form(*['Content-Disposition: form-data; name="files"; filename="a"\r\n\r\n'] * 1001),
            413,
            id="many files",
        ),
        pytest.param(form(FIELD.format("project", "\x00")), 422, id="a NUL"),
    ],
)
def test_a_hostile_form_is_refused(service: Service, body: bytes, status: int) -> None:
    for path in ("/images", "/imports"):
        answer = service.client.post(
            path, content=body, headers={"content-type": "multipart/form-data; boundary=b"}
        )
        assert answer.status_code == status, answer.text
