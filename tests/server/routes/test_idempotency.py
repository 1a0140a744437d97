"""Retries under one `Idempotency-Key`; a storm of them stands in `tests/server/test_retries.py`."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from server.deps import Context
from server.errors import Unprocessable
from server.routes import idempotent
from server.services import cycles
from server.services.idempotency import (
    Answer,
    Attempt,
    Replayed,
    keep,
    replay_if_answered,
    reserve_at_begin,
)
from server.store.blobs import BlobStore
from server.store.models import Cycle, IdempotencyKey, Image, Import, Project, utc_now
from server.store.sweep import sweep

KEY = {"Idempotency-Key": "a-key"}
STREET = {"name": "street", "classes": ["car"]}


def count(sessions: sessionmaker[Session], table: type[Any]) -> int:
    with sessions() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def same(first: httpx2.Response, again: httpx2.Response) -> None:
    """Both are the one answer, and the second one says that it is repeated."""
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert again.headers.get("location") == first.headers.get("location")
    assert again.headers["content-type"] == first.headers["content-type"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


def test_every_post_takes_an_idempotency_key(app: FastAPI) -> None:
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            names = [parameter["name"] for parameter in operation.get("parameters", [])]
            # What those two answer holds a secret, which is not kept for a retry.
            takes_one = method == "post" and path not in ("/keys", "/session")
            assert ("Idempotency-Key" in names) == takes_one, (method, path)


def test_a_retry_gets_the_first_answer_and_does_nothing(
    client: TestClient, sessions: sessionmaker[Session]
) -> None:
    first = client.post("/projects", json=STREET, headers=KEY)
    assert first.status_code == 201
    same(first, client.post("/projects", json=STREET, headers=KEY))
    assert count(sessions, Project) == 1


def test_a_retried_cycle_is_one_cycle(pool: Any, sessions: sessionmaker[Session]) -> None:
    pool.upload(3)
    body = {"project": pool.project, "budget": 2}
    first = pool.client.post("/cycles", json=body, headers=KEY)
    assert first.status_code == 202
    same(first, pool.client.post("/cycles", json=body, headers=KEY))
    assert count(sessions, Cycle) == 1


def test_a_retried_claim_gives_the_same_images_and_the_same_token(pool: Any, scribe: Any) -> None:
    pool.upload(4)
    scribe.run(pool.start_cycle(4))
    body = {"project": pool.project, "limit": 2, "author": "ana"}
    first = pool.client.post("/queries/claim", json=body, headers=KEY)
    assert len(first.json()["items"]) == 2
    same(first, pool.client.post("/queries/claim", json=body, headers=KEY))
    # So do the small steps on the way: a release whose answer was lost is no stale claim.
    query = first.json()["items"][0]["id"]
    token = {"claim_token": first.json()["claim_token"]}
    other = {"Idempotency-Key": "another"}
    released = pool.client.post(f"/queries/{query}/release", json=token, headers=other)
    assert released.status_code == 200
    same(released, pool.client.post(f"/queries/{query}/release", json=token, headers=other))


def test_a_retried_upload_says_created_again_and_not_duplicate(
    pool: Any, picture: Callable[..., bytes], sessions: sessionmaker[Session]
) -> None:
    def send(*files: tuple[str, bytes]) -> Any:
        # Each sending has a boundary of its own.
        return pool.client.post(
            "/images",
            data={"project": pool.project},
            files=[("files", (name, data, "image/png")) for name, data in files],
            headers=KEY,
        )

    batch = (("a.png", picture(1)), ("notes.txt", b"no picture"))
    first = send(*batch)
    assert [item["status"] for item in first.json()["items"]] == ["created", "rejected"]
    same(first, send(*batch))
    assert count(sessions, Image) == 1
    for other in (
        (("b.png", picture(1)), batch[1]),
        (("a.png", picture(2)), batch[1]),
        batch[:1],
        batch[::-1],
    ):
        assert send(*other).json()["code"] == "idempotency_key_reused"


def test_a_retried_import_is_one_import(
    pool: Any, zipped: Callable[..., bytes], sessions: sessionmaker[Session]
) -> None:
    def send() -> Any:
        return pool.client.post(
            "/imports",
            data={"project": pool.project},
            files={"archive": ("a.zip", io.BytesIO(zipped()))},
            headers=KEY,
        )

    first = send()
    assert first.status_code == 202
    same(first, send())
    assert count(sessions, Import) == 1


@pytest.fixture
def zipped(picture: Callable[..., bytes]) -> Callable[..., bytes]:
    import zipfile

    def make() -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(zipfile.ZipInfo("a.png"), picture(1))
        return buffer.getvalue()

    return make


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/projects", {**STREET, "name": "other"}),
        ("/projects?x=1", STREET),
        ("/cycles", {"project": "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e", "budget": 1}),
    ],
)
def test_another_request_under_the_same_key_is_refused(
    client: TestClient, sessions: sessionmaker[Session], path: str, body: dict[str, Any]
) -> None:
    client.post("/projects", json=STREET, headers=KEY)
    answer = client.post(path, json=body, headers=KEY)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert "takes a new key" in answer.json()["detail"]
    assert count(sessions, Project) == 1


def test_the_keys_of_two_callers_never_meet(
    client: TestClient, sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    def caller(request: Any) -> str:
        return str(request.headers["x-caller"])

    monkeypatch.setattr(idempotent, "principal_of", caller)
    for name in ("ana", "ben"):
        body = {**STREET, "name": name}
        answer = client.post("/projects", json=body, headers={**KEY, "x-caller": name})
        assert answer.status_code == 201
    assert count(sessions, Project) == 2


@pytest.mark.parametrize("key", ["", "a key", "x" * 256, "schlüssel".encode("latin-1"), "\t"])
def test_a_key_that_cannot_be_one_is_refused(client: TestClient, key: str | bytes) -> None:
    value = key if isinstance(key, bytes) else key.encode()
    answer = client.post("/projects", json=STREET, headers={b"Idempotency-Key": value})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["detail"][0]["loc"] == ["header", "Idempotency-Key"]


def test_a_refused_request_keeps_nothing_and_its_retry_is_tried_anew(
    client: TestClient, sessions: sessionmaker[Session]
) -> None:
    in_the_way = client.post("/projects", json=STREET).json()["id"]
    assert client.post("/projects", json=STREET, headers=KEY).status_code == 409
    assert client.post("/projects", json={"name": ""}, headers=KEY).status_code == 422
    assert count(sessions, IdempotencyKey) == 0
    client.delete(f"/projects/{in_the_way}")
    retried = client.post("/projects", json=STREET, headers=KEY)
    assert retried.status_code == 201
    assert "idempotency-replayed" not in retried.headers


def test_a_commit_that_fails_leaves_neither_the_work_nor_its_answer(
    client: TestClient, sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Session) -> None:
        raise OperationalError("COMMIT", {}, Exception("connection lost"))

    with monkeypatch.context() as broken:
        broken.setattr(Session, "commit", fail)
        broken.setattr("sqlalchemy.orm.SessionTransaction.commit", fail)
        assert client.post("/projects", json=STREET, headers=KEY).status_code == 503
    assert count(sessions, Project) == count(sessions, IdempotencyKey) == 0
    assert client.post("/projects", json=STREET, headers=KEY).status_code == 201


def test_without_a_key_nothing_is_kept(client: TestClient, sessions: sessionmaker[Session]) -> None:
    assert client.post("/projects", json=STREET).status_code == 201
    assert count(sessions, IdempotencyKey) == 0


def test_a_request_waits_for_the_one_under_the_same_key_and_gets_its_answer(
    sessions: sessionmaker[Session],
) -> None:
    """As two servers on one database meet: nothing but the database is between them."""
    attempt = Attempt("", "a-key", "0" * 64)
    reserved, answers = threading.Event(), []

    def retry() -> None:
        reserved.wait(30)
        try:
            with sessions() as session, session.begin():
                reserve_at_begin(session, attempt)
                session.add(Project(name="second"))
                session.flush()
        except Replayed as replayed:
            answers.append(replayed.answer)

    thread = threading.Thread(target=retry)
    thread.start()
    with sessions() as session, session.begin():
        reserve_at_begin(session, attempt)
        session.add(Project(name="first"))
        session.flush()
        reserved.set()
        keep(session, attempt, Answer(201, '{"name": "first"}', "/projects/1"))
    thread.join(60)
    assert answers == [Answer(201, '{"name": "first"}', "/projects/1")]
    assert count(sessions, Project) == 1


def test_a_request_whose_predecessor_fails_does_the_work(sessions: sessionmaker[Session]) -> None:
    attempt = Attempt("", "a-key", "0" * 64)

    class Failed(Exception):
        pass

    def work(*, fail: bool) -> None:
        with sessions() as session, session.begin():
            reserve_at_begin(session, attempt)
            session.add(Project(name="p"))
            session.flush()
            keep(session, attempt, Answer(201, "{}", None))
            if fail:
                raise Failed

    with pytest.raises(Failed):
        work(fail=True)
    work(fail=False)
    assert count(sessions, Project) == 1
    with pytest.raises(Replayed):
        work(fail=False)
    with sessions() as session, pytest.raises(Unprocessable):
        replay_if_answered(session, Attempt("", "a-key", "1" * 64))


def test_one_that_is_worked_on_for_too_long_lets_the_others_go(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, pool: Any
) -> None:
    pool.upload(2)
    entered, leave = threading.Event(), threading.Event()
    create = cycles.create

    def slow(*arguments: Any, **more: Any) -> Any:
        entered.set()
        assert leave.wait(60)
        return create(*arguments, **more)

    monkeypatch.setattr(cycles, "create", slow)
    monkeypatch.setattr(idempotent, "WAIT_SECONDS", 0.05)
    body = {"project": pool.project, "budget": 1}
    answers: list[Any] = []
    first = threading.Thread(
        target=lambda: answers.append(client.post("/cycles", json=body, headers=KEY))
    )
    first.start()
    assert entered.wait(60)
    second = client.post("/cycles", json=body, headers=KEY)
    assert (second.status_code, second.json()["code"]) == (503, "idempotency_key_in_use")
    assert second.headers["retry-after"]
    leave.set()
    first.join(60)
    assert answers[0].status_code == 202
    same(answers[0], client.post("/cycles", json=body, headers=KEY))


def test_answers_are_kept_for_a_day(
    client: TestClient, context: Context, sessions: sessionmaker[Session], blobs: BlobStore
) -> None:
    for name in ("old", "young"):
        client.post("/projects", json={**STREET, "name": name}, headers={"Idempotency-Key": name})
    with sessions.begin() as session:
        session.execute(
            update(IdempotencyKey)
            .where(IdempotencyKey.key == "old")
            .values(created_at=utc_now() - timedelta(hours=25))
        )
    assert sweep(sessions, blobs).idempotency_keys == 1
    with sessions() as session:
        assert session.scalars(select(IdempotencyKey.key)).all() == ["young"]
