from __future__ import annotations

import io
import os
import random
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from server.formats.archive import ArchiveRefused, Limits, Unpacked, unpack

LIMITS = Limits(max_bytes=10_000_000, max_members=1000, max_ratio=100, ratio_free_bytes=1_000_000)
Pack = Callable[[Path, dict[str, bytes]], Path]


def pack_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


def pack_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return path


def pack_tar_gz(path: Path, members: dict[str, bytes]) -> Path:
    return pack_tar(path, members, "w:gz")


packs = pytest.mark.parametrize("pack", [pack_zip, pack_tar, pack_tar_gz])


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def unpacked(archive: Path, limits: Limits = LIMITS) -> tuple[Unpacked, dict[str, bytes]]:
    target = archive.parent / "out"
    target.mkdir()
    result = unpack(archive, target, limits)
    return result, contents(target)


@packs
def test_an_archive_is_unpacked_with_its_folders(tmp_path: Path, pack: Pack) -> None:
    members = {"a.jpg": b"1", "./b/c d.jpg": b"22", "b/ü.jpg": b"", "b/deep/er/x": b"3" * 5000}
    result, files = unpacked(pack(tmp_path / "archive", members))
    assert files == {name.removeprefix("./"): content for name, content in members.items()}
    assert (result.num_files, result.refusals) == (4, [])


@packs
@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "a\\..\\evil",
        "C:/evil",
        "a\nb",
        "x" * 300,
        "a/" * 200 + "b",
    ],
)
def test_a_member_that_leads_out_is_left_out_by_name(tmp_path: Path, pack: Pack, name: str) -> None:
    archive = pack(tmp_path / "archive", {"good.jpg": b"1", name: b"evil", "also.jpg": b"2"})
    result, files = unpacked(archive)
    assert files == {"good.jpg": b"1", "also.jpg": b"2"}
    assert [refused for refused, _ in result.refusals] == [name]
    assert not [path for path in tmp_path.rglob("*") if "evil" in path.name]


def test_links_and_devices_are_left_out(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    with tarfile.open(archive, "w") as packed:
        for name, kind, target in (
            ("link", tarfile.SYMTYPE, "/etc"),
            ("link/passwd", tarfile.REGTYPE, ""),
            ("hard", tarfile.LNKTYPE, "/etc/passwd"),
            ("pipe", tarfile.FIFOTYPE, ""),
            ("disk", tarfile.BLKTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            packed.addfile(info)
    result, files = unpacked(archive)
    assert files == {"link/passwd": b""}  # a plain folder `link`, not the link
    assert [name for name, _ in result.refusals] == ["link", "hard", "pipe", "disk"]


def test_a_link_in_a_zip_is_left_out(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    with zipfile.ZipFile(archive, "w") as packed:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        packed.writestr(info, "/etc/passwd")
    result, files = unpacked(archive)
    assert files == {}
    assert result.refusals[0][0] == "link"
    assert "link" in result.refusals[0][1]


def test_members_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    with tarfile.open(archive, "w") as packed:
        for name, content in (("a", b"first"), ("a", b"second"), ("a/b", b"below a file")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    result, files = unpacked(archive)
    assert files == {"a": b"first"}
    assert [name for name, _ in result.refusals] == ["a", "a/b"]


@packs
def test_more_bytes_than_allowed_end_the_unpacking(tmp_path: Path, pack: Pack) -> None:
    members = {f"{i}": os.urandom(100_000) for i in range(10)}
    with pytest.raises(ArchiveRefused, match="more than 500000 bytes"):
        unpacked(pack(tmp_path / "archive", members), Limits(max_bytes=500_000))
    assert sum(map(len, contents(tmp_path / "out").values())) <= 600_000


@pytest.mark.parametrize("pack", [pack_zip, pack_tar_gz])
def test_a_bomb_is_refused(tmp_path: Path, pack: Pack) -> None:
    bomb = {f"{i}": bytes(2_000_000) for i in range(4)}
    with pytest.raises(ArchiveRefused, match="bomb"):
        unpacked(pack(tmp_path / "archive", bomb))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_tar_header_beyond_measure_is_refused_before_it_is_read(
    tmp_path: Path, kind: bytes
) -> None:
    header = tarfile.TarInfo("a.jpg")
    header.type, header.size = kind, 1 << 40  # not in the file: it would look cut short
    (tmp_path / "archive").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(ArchiveRefused, match="header of 1099511627776 bytes"):
        unpacked(tmp_path / "archive")


def test_a_list_of_holes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    old = tarfile.TarInfo("a.jpg")
    old.type = tarfile.GNUTYPE_SPARSE
    (tmp_path / "old").write_bytes(old.tobuf() + bytes(10_240))
    with tarfile.open(tmp_path / "new", "w", format=tarfile.PAX_FORMAT) as packed:
        new = tarfile.TarInfo("a.jpg")
        new.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        packed.addfile(new)
    for number, name in enumerate(("old", "new")):
        with pytest.raises(ArchiveRefused, match="without --sparse"):
            unpack(tmp_path / name, tmp_path / str(number), LIMITS)


@packs
def test_more_members_than_allowed_are_refused(tmp_path: Path, pack: Pack) -> None:
    members = {f"{i}": b"" for i in range(20)}
    with pytest.raises(ArchiveRefused, match="more than 10 members"):
        unpacked(pack(tmp_path / "archive", members), Limits(max_bytes=1000, max_members=10))


@packs
def test_an_archive_that_is_cut_short_is_refused(tmp_path: Path, pack: Pack) -> None:
    archive = pack(tmp_path / "archive", {f"{i}": os.urandom(10_000) for i in range(10)})
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    with pytest.raises(ArchiveRefused):
        unpacked(archive)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04nonsense", b"\x1f\x8bnonsense"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(content)
    with pytest.raises(ArchiveRefused):
        unpacked(archive)


def test_a_damaged_member_of_a_zip_is_left_out_alone(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("bad", b"this was right once")
        packed.writestr("good", b"this is")
    archive.write_bytes(archive.read_bytes().replace(b"right once", b"wrong once"))
    result, files = unpacked(archive)
    assert files == {"good": b"this is"}
    assert [name for name, _ in result.refusals] == ["bad"]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_bytes_that_fell_over_are_refused_and_never_crash(tmp_path: Path, method: int) -> None:
    archive = tmp_path / "archive"
    with zipfile.ZipFile(archive, "w", method) as packed:
        for name in ("a.jpg", "ü.jpg", "b/c.jpg"):
            packed.writestr(name, b"abc" * 100)
    content, fate = bytearray(archive.read_bytes()), random.Random(1)
    for number in range(150):
        damaged = bytearray(content)
        for _ in range(3):
            damaged[fate.randrange(len(damaged))] = fate.choice((0, 255, fate.randrange(256)))
        archive.write_bytes(damaged)
        with suppress(ArchiveRefused):
            unpack(archive, tmp_path / str(number), LIMITS)


def test_an_encrypted_member_is_left_out(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path / "archive", {"secret": b"1", "open": b"2"})
    content = bytearray(archive.read_bytes())
    # The flag in the local header and in the table of contents of the first member.
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    result, files = unpacked(archive)
    assert files == {"open": b"2"}
    assert "encrypted" in result.refusals[0][1]


def test_whoever_watches_can_stop_the_unpacking(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    archive = pack_zip(tmp_path / "archive", {"a": b"1"})
    with pytest.raises(Stopped):
        unpack(archive, tmp_path, LIMITS, stop)
