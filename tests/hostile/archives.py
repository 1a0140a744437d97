"""Archives that are sent to an import, each with what must become of it."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator

from tests.hostile.pictures import encoded

# What every archive that is not refused whole holds besides, so that the rest is seen to go in.
GOOD = "good.png"


def refused_whole() -> Iterator[tuple[str, Callable[[], bytes], str]]:
    """Name, maker, and the words of the refusal."""
    yield "no archive", lambda: b"not an archive at all", "no whole archive"
    yield "empty", lambda: b"", "no whole archive"
    yield "rar", lambda: b"Rar!\x1a\x07\x01\0" + bytes(100), "no whole archive"
    yield "cut zip", lambda: packed_zip({"a": bytes(9999)})[:-40], "no whole archive|damaged"
    yield "cut tar.gz", lambda: gzip.compress(packed_tar({"a": noise(9999)}))[:-4000], "damaged"
    yield "zip bomb", lambda: zip_bomb(400_000_000), "looks like a bomb"
    yield "overlapping zip bomb", overlapping_zip, "no files that can be read"
    yield "gzip bomb", lambda: gzip_bomb(400_000_000), "looks like a bomb"
    yield "nested gzip", lambda: gzip.compress(gzip.compress(packed_tar({"a": b""}))), "no whole"
    yield "many members", lambda: many_members(200_000), "more than 150000 members"
    yield "many members said to be few", lambda: many_members(200_000, said=3), "more than 150000"
    yield "table of contents elsewhere", lying_end, "damaged|no whole"
    yield "many bad members", lambda: packed_tar({f"../{i}": b"" for i in range(11_000)}), "10000"
    yield "long header", lambda: pax_header(tarfile.XHDTYPE, 2_000_000), "header of"
    yield "long name", lambda: pax_header(tarfile.GNUTYPE_LONGNAME, 2_000_000), "header of"
    yield "headers for all", lambda: global_headers(20), "header of|damaged"
    yield "headers in a row", lambda: gzip.compress(headers_in_a_row(5000)), "damaged"
    yield "endless member", lambda: huge_member(2**60), "damaged"
    yield "sparse", lambda: sparse(b"GNU.sparse.map", b"0,1," * 1000), "sparse"
    yield "sparse of old", lambda: sparse(b"GNU.sparse.size", b"99999999999999"), "sparse"


def refused_members() -> Iterator[tuple[str, Callable[[], bytes], dict[str, str]]]:
    """Name, maker, and the words of the refusal by member; the good picture goes in."""
    out, absolute = "leads out", "absolute path"
    for kind, pack in (("zip", packed_zip), ("tar", packed_tar)):
        names = {
            "../evil.png": out,
            "a/../../evil.png": out,
            "a/..": out,
            "/etc/evil.png": absolute,
            "..\\evil.png": absolute,
            "C:/evil.png": absolute,
            "C:evil.png": absolute,
            "a\nb.png": "control character",
            "x" * 300 + ".png": "too long",
            "d/" * 150 + "x.png": "folders deep",
        }
        yield (
            f"{kind} of names",
            lambda pack=pack, names=names: pack(  # type: ignore[misc]
                {name: encoded("PNG", (9, 9)) for name in names} | {GOOD: encoded("PNG")}
            ),
            names,
        )
    yield (
        "links and devices in a tar",
        tar_of_links,
        dict.fromkeys(("link", "hard", "pipe", "disk", "terminal"), "link or a device"),
    )
    yield (
        "links and devices in a zip",
        zip_of_links,
        dict.fromkeys(("link", "pipe", "socket"), "link or a device"),
    )
    yield (
        "twice the same name",
        lambda: packed_tar({GOOD: encoded("PNG")}, {GOOD: encoded("PNG", (9, 9))}),
        {GOOD: "another member"},
    )
    yield (
        "a file as a folder",
        lambda: packed_tar({GOOD: encoded("PNG"), f"{GOOD}/a.png": encoded("PNG", (9, 9))}),
        {f"{GOOD}/a.png": "another member"},
    )
    yield "encrypted", lambda: with_flag(1), {"a.png": "encrypted"}
    yield (
        "packed otherwise",
        lambda: packed_zip({"a.png": encoded("PNG", (9, 9))}, method=zipfile.ZIP_LZMA, good=True),
        {"a.png": "uncommon method"},
    )
    yield "wrong checksum", wrong_checksum, {"a.png": "damaged"}
    yield (
        "archive in an archive",
        lambda: packed_zip({"42.zip": zip_bomb(50_000_000), GOOD: encoded("PNG")}),
        {"42.zip": "no picture that can be read"},
    )


def noise(number: int) -> bytes:
    """Bytes that do not shrink."""
    return encoded("BMP", (number // 3 // 50 + 1, 50))[:number]


def packed_zip(
    members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, good: bool = False
) -> bytes:
    """A zip file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, content in members.items():
            packed.writestr(zipfile.ZipInfo(name), content, method)
        if good:
            packed.writestr(GOOD, encoded("PNG"))
    return buffer.getvalue()


def packed_tar(*parts: dict[str, bytes]) -> bytes:
    """A tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for members in parts:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_bomb(num_bytes: int) -> bytes:
    """One member of zeros."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open("a.png", "w", force_zip64=True) as member,
    ):
        for _ in range(num_bytes // 1_000_000):
            member.write(bytes(1_000_000))
    return buffer.getvalue()


def gzip_bomb(num_bytes: int) -> bytes:
    """A tar of one member of zeros, packed."""
    buffer = io.BytesIO()
    info = tarfile.TarInfo("a.png")
    info.size = num_bytes
    with gzip.GzipFile(fileobj=buffer, mode="wb") as packed:
        packed.write(info.tobuf())
        for _ in range(num_bytes // 1_000_000):
            packed.write(bytes(1_000_000))
    return buffer.getvalue()


def overlapping_zip() -> bytes:
    """A thousand entries in the table of contents for one and the same packed megabyte."""
    content = packed_zip({"a.png": bytes(100_000_000)})
    at = content.index(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    entry, tail = bytearray(content[at:end]), bytearray(content[end:])
    table = b""
    for number in range(1000):
        entry[46:51] = b"%05d" % number
        table += entry
    tail[8:16] = struct.pack("<HHI", 1000, 1000, len(table))
    return content[:at] + table + tail


def many_members(number: int, said: int | None = None) -> bytes:
    """Empty members, all of one content; `said` is how many the end record tells of."""
    name = b"0000000.png"
    header = struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0) + name
    table = b"".join(
        struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0
        )
        + b"%07d.png" % each
        for each in range(number)
    )
    count = min(number, 65_535) if said is None else said
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(table), len(header), 0)
    return header + table + end


def lying_end() -> bytes:
    """A table of contents before the start of the file."""
    content = bytearray(packed_zip({"a.png": encoded("PNG")}))
    end = content.rindex(b"PK\x05\x06")
    content[end + 12 : end + 20] = struct.pack("<II", 2**31, 2**31)
    return bytes(content)


def with_flag(flag: int) -> bytes:
    """Says of its first member that it is encrypted."""
    content = bytearray(packed_zip({"a.png": encoded("PNG", (9, 9)), GOOD: encoded("PNG")}))
    content[6] |= flag
    content[content.index(b"PK\x01\x02") + 8] |= flag
    return bytes(content)


def wrong_checksum() -> bytes:
    """The packed bytes of the first member are not those of its checksum."""
    member = encoded("PNG", (9, 9))
    content = packed_zip({"a.png": member}, zipfile.ZIP_STORED, good=True)
    return content.replace(member, member[:-20] + bytes(20), 1)


def pax_header(kind: bytes, size: int) -> bytes:
    """A tar that begins with a header of this kind and size."""
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, size
    return gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + bytes(size + 1024))


def global_headers(number: int) -> bytes:
    """Each for all members, each with another key and a long value."""
    made = b""
    for each in range(number):
        line = b" k%05d=" % each + b"v" * 900_000 + b"\n"
        record = b"%d" % (len(line) + 6) + line
        made += _header_block(tarfile.XGLTYPE, record) + packed_tar({f"{each}.png": b""})[:512]
    return gzip.compress(made + bytes(1024), 1)


def headers_in_a_row(number: int) -> bytes:
    """And never a member."""
    return _header_block(tarfile.XHDTYPE, b"9 a=bbbb\n") * number + bytes(1024)


def huge_member(size: int) -> bytes:
    """One that is said to be an exabyte."""
    info = tarfile.TarInfo("a.png")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(5120)


def sparse(key: bytes, value: bytes) -> bytes:
    """A file with holes."""
    line = b" " + key + b"=" + value + b"\n"
    digits = len(str(len(line) + 5))
    record = b"%d" % (len(line) + digits) + line
    return _header_block(tarfile.XHDTYPE, record) + packed_tar({"a.png": b"0" * 512})


def _header_block(kind: bytes, content: bytes) -> bytes:
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def tar_of_links() -> bytes:
    """Of every kind."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name, kind, target in (
            ("link", tarfile.SYMTYPE, "/etc/passwd"),
            ("hard", tarfile.LNKTYPE, "../../../etc/passwd"),
            ("pipe", tarfile.FIFOTYPE, ""),
            ("disk", tarfile.BLKTYPE, ""),
            ("terminal", tarfile.CHRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            packed.addfile(info)
        good = tarfile.TarInfo(GOOD)
        content = encoded("PNG")
        good.size = len(content)
        packed.addfile(good, io.BytesIO(content))
    return buffer.getvalue()


def zip_of_links() -> bytes:
    """Links, pipes and sockets, as Unix writes them into a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, kind in (("link", 0o12), ("pipe", 0o01), ("socket", 0o14)):
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind << 12 | 0o777) << 16
            packed.writestr(info, "/etc/passwd")
        packed.writestr(GOOD, encoded("PNG"))
    return buffer.getvalue()
