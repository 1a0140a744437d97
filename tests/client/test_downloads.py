"""Files from the server: whole, or not at all."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import miaod_client
import pytest
from miaod_client import Client

MakeClient = Callable[..., Client]
WEIGHTS = bytes(range(256)) * 1000


class BrokenStream(httpx2.SyncByteStream):
    """A body whose line breaks in the middle."""

    def __iter__(self) -> Iterator[bytes]:
        yield WEIGHTS[:1000]
        raise httpx2.ReadError("reset by peer")


def whole(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, content=WEIGHTS)


def test_a_download_lands_in_the_file_and_tells_its_progress(
    make_client: MakeClient, tmp_path: Path
) -> None:
    seen: list[tuple[int, int | None]] = []
    path = make_client(whole).models.download(
        "m1", to=tmp_path / "best.safetensors", on_progress=lambda *now: seen.append(now)
    )
    assert path == tmp_path / "best.safetensors"
    assert path.read_bytes() == WEIGHTS
    assert seen[-1] == (len(WEIGHTS), len(WEIGHTS))


def test_a_folder_that_is_not_there_is_named_before_anything_is_asked(
    make_client: MakeClient, tmp_path: Path
) -> None:
    def unasked(request: httpx2.Request) -> httpx2.Response:
        raise AssertionError(request.url)

    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        make_client(unasked).models.download("m1", to=tmp_path / "nowhere" / "best.safetensors")


def test_a_folder_gets_the_file_under_its_default_name(
    make_client: MakeClient, tmp_path: Path
) -> None:
    path = make_client(whole).cycles.download_artifact("c1", "scores.npz", to=tmp_path)
    assert path == tmp_path / "scores.npz"


@pytest.mark.parametrize(
    ("proposed", "name"),
    [
        ('attachment; filename="street.zip"', "street.zip"),
        ("attachment; filename*=UTF-8''stra%C3%9Fe.zip", "straße.zip"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="..\\\\..\\\\evil.zip"', "evil.zip"),
        ('attachment; filename=".."', "voc.zip"),
        ("attachment", "voc.zip"),
    ],
)
def test_a_proposed_name_counts_but_never_leads_out_of_the_folder(
    proposed: str, name: str, make_client: MakeClient, tmp_path: Path
) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=b"zip", headers={"content-disposition": proposed})

    path = make_client(answer).exports.download(project="p1", to=tmp_path, format="voc")
    assert path == tmp_path / name


def test_a_broken_line_is_tried_again_from_the_start(
    make_client: MakeClient, tmp_path: Path
) -> None:
    broken = [httpx2.Response(200, stream=BrokenStream()) for _ in range(2)]

    def answer(request: httpx2.Request) -> httpx2.Response:
        return broken.pop() if broken else whole(request)

    target = tmp_path / "m.safetensors"
    make_client(answer).models.download("m1", to=target)
    assert target.read_bytes() == WEIGHTS
    assert list(tmp_path.iterdir()) == [target]


def test_a_line_that_always_breaks_leaves_the_old_file_as_it_was(
    make_client: MakeClient, tmp_path: Path
) -> None:
    target = tmp_path / "m.safetensors"
    target.write_bytes(b"old")
    client = make_client(lambda request: httpx2.Response(200, stream=BrokenStream()))
    with pytest.raises(miaod_client.IncompleteDownloadError, match="reset by peer"):
        client.models.download("m1", to=target)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_body_shorter_than_announced_is_no_file(make_client: MakeClient, tmp_path: Path) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=WEIGHTS[:100], headers={"content-length": "256000"})

    with pytest.raises(miaod_client.IncompleteDownloadError, match="100 of 256000"):
        make_client(answer).models.download("m1", to=tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_refused_download_writes_nothing(make_client: MakeClient, tmp_path: Path) -> None:
    body = {"detail": "weights were swept", "code": "swept"}
    client = make_client(lambda request: httpx2.Response(404, json=body))
    with pytest.raises(miaod_client.NotFoundError, match="weights were swept"):
        client.models.download("m1", to=tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_progress_callback_leaves_nothing_behind(
    make_client: MakeClient, tmp_path: Path
) -> None:
    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_client(whole).models.download("m1", to=tmp_path / "m", on_progress=stop)
    assert list(tmp_path.iterdir()) == []
