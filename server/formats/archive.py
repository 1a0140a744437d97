"""Archives: zip, tar and tar.gz, unpacked so that a hostile one can do no harm.

Nothing is written outside the target folder, no link or device is made, and the bytes are counted
as they come, whatever the archive says about itself. Members that cannot be used are reported by
name and the rest is kept; an archive that is no archive, is cut short or looks like a bomb is
refused as a whole.
"""

from __future__ import annotations

import errno
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Literal

from server.formats.folder import FileRefused, open_regular

CHUNK_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
# What the readers of zip and tar raise where their bytes make no sense.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    IndexError,
    NotImplementedError,
    ValueError,
    RecursionError,  # one header after the other, and never a member
)
# An archive of which so much is left out by name is not what somebody meant to send.
MAX_REFUSALS = 10_000
# What is known of a member costs memory before anything is unpacked; larger sets come as several
# archives, or as a folder below an import root.
MAX_MEMBERS = 150_000
_ZIP_ENTRY = b"PK\x01\x02"  # begins each entry of the table of contents
_ZIP64_RECORDS_BYTES = 76  # may stand between that table and its end record
# Other methods have readers that take as much memory as the file asks for.
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Deeper ones are hostile; walking a thousand levels is more than Python's stack holds.
MAX_FOLDERS = 100
# A long name, or the attributes of a member, or of all members; honest ones have some kilobytes.
MAX_TAR_HEADER_BYTES = 1 << 20
_TAR_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class ArchiveRefused(ValueError):
    """An archive that is not unpacked (any further); the message says why."""


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold.

    Attributes:
        max_bytes: unpacked, all members together.
        max_members: files and folders.
        max_ratio: unpacked bytes per packed byte, once `ratio_free_bytes` were unpacked. Pictures
            hardly shrink when packed and XML shrinks twentyfold; only bombs shrink much more.
    """

    max_bytes: int
    max_members: int = MAX_MEMBERS
    max_ratio: int = 100
    ratio_free_bytes: int = 100_000_000


@dataclass
class Unpacked:
    """What came of an archive: how many files, and the members left out, with the reason."""

    num_files: int
    refusals: list[tuple[str, str]]


@dataclass(frozen=True)
class _Member:
    name: str
    is_folder: bool
    refusal: str | None
    source: zipfile.ZipInfo | tarfile.TarInfo


def unpack(
    archive: Path, target: Path, limits: Limits, on_member: Callable[[], None] = lambda: None
) -> Unpacked:
    """Unpack an archive into an empty folder.

    Args:
        archive: the file, on a path without links; its name does not matter.
        target: the folder.
        limits: how much may come out.
        on_member: called before each member; may raise to stop.

    Raises:
        ArchiveRefused: no zip or tar, cut short, or beyond the limits; `target` then holds a part,
            which the caller removes.
    """
    result = Unpacked(0, [])
    try:
        budget = _Budget(limits, archive.stat().st_size)
        with _open(archive, limits.max_members) as (members, open_member):
            for count, member in enumerate(members, start=1):
                on_member()
                if count > limits.max_members:
                    raise ArchiveRefused(
                        f"the archive has more than {limits.max_members} members; split it"
                    )
                refusal = member.refusal or _unsafe_name(member.name)
                if refusal is None and not member.is_folder:
                    try:
                        with open_member(member.source) as source:
                            _write(source, target / member.name, budget)
                        result.num_files += 1
                    except _MemberRefused as error:
                        refusal = str(error)
                if refusal is not None:
                    result.refusals.append((_printable(member.name), refusal))
                    if len(result.refusals) > MAX_REFUSALS:
                        raise ArchiveRefused(
                            f"more than {MAX_REFUSALS} members of the archive cannot be used; the "
                            f"last is {_printable(member.name)!r}: {refusal}"
                        )
    except ArchiveRefused:
        raise
    except _DAMAGE as error:
        raise ArchiveRefused(
            f"the archive is damaged or cut short ({error}); send it anew"
        ) from error
    except OSError as error:
        # Of the disk, unless it is a broken gzip stream or a place before the start of the file.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise ArchiveRefused(f"the archive is damaged ({error}); send it anew") from error
    return result


class _MemberRefused(ValueError):
    pass


class _Budget:
    """Counts unpacked bytes against the limits."""

    def __init__(self, limits: Limits, packed_bytes: int) -> None:
        self._limits = limits
        self._packed_bytes = packed_bytes
        self._bytes = 0

    def spend(self, num_bytes: int) -> None:
        self._bytes += num_bytes
        if self._bytes > self._limits.max_bytes:
            raise ArchiveRefused(
                f"the archive unpacks to more than {self._limits.max_bytes} bytes; split it"
            )
        allowed = self._limits.ratio_free_bytes + self._limits.max_ratio * self._packed_bytes
        if self._bytes > allowed:
            raise ArchiveRefused(
                f"the archive unpacks to more than {allowed} bytes from {self._packed_bytes}: "
                "it looks like a bomb; pack pictures without padding"
            )


@contextmanager
def _open(archive: Path, max_members: int) -> Iterator[tuple[Iterator[_Member], _Opener]]:
    try:
        file = open_regular(archive)
    except FileRefused as error:
        raise ArchiveRefused(f"the archive cannot be read: {error}") from None
    with file:
        if zipfile.is_zipfile(file):
            _check_zip_size(file, max_members)
            with zipfile.ZipFile(file) as packed:
                yield _zip_members(packed), _ZipOpener(packed)
            return
        file.seek(0)
        is_gzip = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        mode: Literal["r:gz", "r:"] = "r:gz" if is_gzip else "r:"
        try:
            tar = tarfile.open(fileobj=file, mode=mode, tarinfo=_TarInfo)  # noqa: SIM115
        except tarfile.ReadError:
            raise ArchiveRefused(
                "the file is no whole archive of a kind that is read: zip, tar or tar.gz"
            ) from None
        with tar:
            yield _tar_members(tar), _TarOpener(tar)


def _check_zip_size(file: BinaryIO, max_members: int) -> None:
    """Refuse a table of contents of too many members, all of which `ZipFile` would hold in memory.

    How many it says it has is not believed, by `ZipFile` neither.
    """
    # The one place that knows how to find it, also in the large (zip64) form.
    record = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if record is None:
        return
    size, end = record[zipfile._ECD_SIZE], record[zipfile._ECD_LOCATION]  # type: ignore[attr-defined]
    if size > end:
        raise ArchiveRefused("the archive's table of contents is damaged; send it anew")
    file.seek(max(0, end - size - _ZIP64_RECORDS_BYTES))
    count, kept = 0, b""
    while file.tell() < end and (chunk := file.read(CHUNK_BYTES)):
        count += (kept + chunk).count(_ZIP_ENTRY)
        kept = chunk[-3:]
        if count > max_members:
            raise ArchiveRefused(f"the archive has more than {max_members} members; split it")


class _TarInfo(tarfile.TarInfo):
    """Refuses the headers that `tarfile` would hold in memory whole, however long they are."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _TAR_HEADERS:
            held = self.size
            if self.type == tarfile.XGLTYPE:  # kept until the end
                held += sum(len(key) + len(value) for key, value in tar.pax_headers.items())
            if held > MAX_TAR_HEADER_BYTES:
                raise ArchiveRefused(
                    f"the archive has a name or header of {held} bytes; at most "
                    f"{MAX_TAR_HEADER_BYTES} are read"
                )
        if self.type == tarfile.GNUTYPE_SPARSE:
            self._proc_gnusparse_10()
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]

    def _proc_gnusparse_10(self, *_: object) -> None:
        """All three kinds of lists of holes."""
        raise ArchiveRefused("the archive holds sparse files; pack it without --sparse")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10


class _ZipOpener:
    def __init__(self, packed: zipfile.ZipFile) -> None:
        self._packed = packed

    def __call__(self, source: zipfile.ZipInfo | tarfile.TarInfo) -> IO[bytes]:
        assert isinstance(source, zipfile.ZipInfo)
        try:
            return self._packed.open(source)
        except (*_DAMAGE, RuntimeError) as error:
            raise _MemberRefused(f"it cannot be unpacked ({error})") from error


class _TarOpener:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def __call__(self, source: zipfile.ZipInfo | tarfile.TarInfo) -> IO[bytes]:
        assert isinstance(source, tarfile.TarInfo)
        stream = self._tar.extractfile(source)
        assert stream is not None  # links and devices were refused before
        return stream


_Opener = _ZipOpener | _TarOpener


def _zip_members(packed: zipfile.ZipFile) -> Iterator[_Member]:
    for info in packed.infolist():
        mode = info.external_attr >> 16
        refusal = None
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            refusal = "it is a link or a device; put the file itself into the archive"
        elif info.flag_bits & 1:
            refusal = "it is encrypted; pack it without a password"
        elif info.compress_type not in _ZIP_METHODS:
            refusal = "it is packed by an uncommon method; pack it by deflation, as usual"
        yield _Member(info.filename, info.is_dir(), refusal, info)


def _tar_members(tar: tarfile.TarFile) -> Iterator[_Member]:
    for info in tar:
        # Without this the list of members, kept for random access, grows with hostile archives.
        tar.members = []  # type: ignore[attr-defined]
        refusal = None
        if not info.isfile() and not info.isdir():
            refusal = "it is a link or a device; put the file itself into the archive"
        yield _Member(info.name, info.isdir(), refusal, info)


def _unsafe_name(name: str) -> str | None:
    has_drive = name[1:2] == ":" and name[0].isascii() and name[0].isalpha()
    if name.startswith("/") or "\\" in name or has_drive:
        return "its name is an absolute path or a Windows one; relative names with / are due"
    if ".." in name.split("/"):
        return "its name leads out of the archive; relative names without .. are due"
    if name.count("/") > MAX_FOLDERS:
        return f"it lies more than {MAX_FOLDERS} folders deep"
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "its name holds a control character"
    if any("\ud800" <= character <= "\udfff" for character in name):
        return "its name is not valid Unicode"
    return None


def _write(source: IO[bytes], path: Path, budget: _Budget) -> None:
    """Write one member to a new file; a part of it does not stay."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    except (FileExistsError, NotADirectoryError):
        raise _MemberRefused("another member of the archive has this name") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _MemberRefused("its name is too long for a file") from None
        raise
    try:
        with file:
            while chunk := source.read(CHUNK_BYTES):
                budget.spend(len(chunk))
                file.write(chunk)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:  # this member only
        path.unlink()
        raise _MemberRefused(f"it is damaged ({error})") from error


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode().replace("\x00", "")[:500]
