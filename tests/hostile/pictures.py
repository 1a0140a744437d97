"""Files that are sent as pictures and are none that may be taken, each with what must be said."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
NO_PICTURE = "no picture that can be read"
DAMAGED = "damaged|cut short|no picture|holds|declares|more memory"
TOO_LARGE = "at most 100000000 pixels"


def encoded(format: str, size: tuple[int, int] = (64, 48), mode: str = "RGB", **more: Any) -> bytes:
    """An honest picture with some texture."""
    buffer = io.BytesIO()
    Image.effect_noise(size, 90).convert(mode).save(buffer, format, **more)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG of which the header says so."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return _PNG + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def flat_png(width: int, height: int) -> bytes:
    """A whole, honest, black picture of any size in a few kilobytes: one bit a pixel."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return png(width, height, chunk(b"IDAT", rows), bits=1, colour=0)


def tiff(entries: dict[int, tuple[int, int, int]], next_ifd: int = 0, more: bytes = b"") -> bytes:
    """A little-endian TIFF of one directory: tag -> (type, count, value or offset)."""
    table = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()))
    return (
        b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", next_ifd) + more
    )


def tiff_of(width: int, height: int, compression: int = 1, **more: tuple[int, int, int]) -> bytes:
    """A grey TIFF of one strip that stands behind the directory."""
    entries = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, 1, 8),
        259: (3, 1, compression),
        262: (3, 1, 1),
        273: (4, 1, 122),
        277: (3, 1, 1),
        278: (4, 1, height),
        279: (4, 1, 64),
    }
    entries |= {int(tag[1:]): entry for tag, entry in more.items()}
    return tiff(entries, more=b"\x78\x9c" + bytes(range(62)))


def many_scans(size: int, scans: int) -> bytes:
    """A progressive JPEG that has its last scan again and again: little to send, long to decode."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * scans + content[-2:]


def refused() -> Iterator[tuple[str, bytes, str]]:
    """Name, content and the words of the refusal."""
    yield "empty.jpg", b"", "empty"
    yield "text.jpg", b"hello", NO_PICTURE
    yield "page.jpg", b"<html><script>alert(1)</script></html>", NO_PICTURE
    yield "active.svg", b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', NO_PICTURE
    yield "paper.pdf", b"%PDF-1.7\n1 0 obj<</OpenAction 2 0 R>>endobj", NO_PICTURE
    yield "program.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nquit", NO_PICTURE
    yield "layers.psd", b"8BPS\0\1" + bytes(40), NO_PICTURE
    yield "film.mp4", b"\0\0\0\x18ftypmp42" + bytes(40), NO_PICTURE
    for format in ("GIF", "ICO", "PCX", "PPM", "TGA", "JPEG2000", "AVIF", "ICNS", "PDF", "EPS"):
        yield f"other.{format.lower()}", encoded(format), NO_PICTURE
    yield "gifar.gif", encoded("GIF") + _zip(), NO_PICTURE

    for format in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        whole = encoded(format)
        for kept in (len(whole) // 10, len(whole) // 2, len(whole) - 60):
            yield f"cut-{kept}.{format.lower()}", whole[:kept], DAMAGED
    broken = bytearray(encoded("PNG"))
    broken[len(broken) // 2] ^= 255
    yield "checksum.png", bytes(broken), DAMAGED

    idat = chunk(b"IDAT", zlib.compress(bytes(1000)))
    yield "65000.png", png(65_000, 65_000, idat), TOO_LARGE
    yield "one-row.png", png(2**31 - 1, 1, idat), TOO_LARGE
    yield "nothing.png", png(0, 0, idat), "damaged|must have|no picture"
    yield "headed-65000.jpg", _resized_jpeg(65_000, 65_000), TOO_LARGE
    yield "flat-0.jpg", _resized_jpeg(0, 64), DAMAGED
    yield "65000.bmp", _resized_bmp(65_000, 65_000), TOO_LARGE
    yield "lying.bmp", _resized_bmp(9_000, 9_000), DAMAGED
    yield "65000.tiff", tiff_of(65_000, 65_000), TOO_LARGE
    yield "lying.tiff", tiff_of(9_000, 9_000), DAMAGED
    yield "16383.webp", _resized_webp(16_383), f"{TOO_LARGE}|{DAMAGED}"

    # Little that unpacks to much, where a reader has not come to the pixels yet.
    bomb = zlib.compress(bytes(200_000_000), 9)
    pixels = chunk(b"IDAT", zlib.compress(bytes(31 * 10)))
    yield "text.png", png(10, 10, chunk(b"zTXt", b"a\0\0" + bomb), pixels), DAMAGED
    yield "itext.png", png(10, 10, chunk(b"iTXt", b"a\0\1\0\0\0" + bomb), pixels), DAMAGED
    texts = [chunk(b"zTXt", b"%d\0\0" % i + zlib.compress(bytes(1_000_000))) for i in range(100)]
    yield "texts.png", png(10, 10, *texts, pixels), DAMAGED
    yield "frames.png", encoded_frames("PNG", 50), "holds 50 pictures"
    yield "frames.webp", encoded_frames("WEBP", 50), r"holds \d+ pictures"
    yield "pages.tiff", encoded_frames("TIFF", 200), "holds 200 pictures"

    yield "loop.tiff", tiff({256: (4, 1, 4), 257: (4, 1, 4)}, next_ifd=8), DAMAGED
    yield "strip.tiff", tiff_of(8, 8, t273=(4, 1, 2**32 - 1)), DAMAGED
    yield "strips.tiff", tiff_of(8, 8, t273=(4, 2**28, 8), t279=(4, 2**28, 8)), DAMAGED
    for compression in (2, 3, 4, 5, 6, 7, 8, 32773, 34676, 34887, 34925, 50000, 50001, 9999):
        yield f"by-{compression}.tiff", tiff_of(50, 50, compression), DAMAGED
    yield "floats.tiff", encoded("TIFF", mode="F"), "8 or 16 bits"


def encoded_frames(format: str, number: int) -> bytes:
    """An animation, or a file of many pages."""
    frames = [Image.new("L", (8, 8), shade) for shade in range(number)]
    buffer = io.BytesIO()
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def polyglots() -> Iterator[tuple[str, bytes, str]]:
    """Pictures that are something else as well: name, content, the type to serve them as."""
    page = b"<html><script>alert(document.domain)</script></html>"
    yield "page.html", encoded("JPEG") + page, "image/jpeg"
    yield "archive.zip", encoded("PNG") + _zip(), "image/png"
    comment = chunk(b"tEXt", b"Comment\0" + page)
    yield "page.svg", png(2, 1, comment, chunk(b"IDAT", zlib.compress(bytes(7)))), "image/png"
    pixels = encoded("BMP", (32, 32))
    yield 'quo"te;\u202fx.exe', pixels + page, "image/bmp"


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("Evil.class", b"\xca\xfe\xba\xbe")
    return buffer.getvalue()


def _resized_jpeg(width: int, height: int) -> bytes:
    content = bytearray(encoded("JPEG"))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def _resized_bmp(width: int, height: int) -> bytes:
    content = bytearray(encoded("BMP"))
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


def _resized_webp(side: int) -> bytes:
    content = bytearray(encoded("WEBP", exif=Image.Exif().tobytes()))
    side_bytes = struct.pack("<I", side - 1)[:3]
    at = content.index(b"VP8X") + 12
    content[at : at + 6] = side_bytes + side_bytes
    return bytes(content)
