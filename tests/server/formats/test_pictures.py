from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from server.formats.pictures import (
    Picture,
    PictureRefused,
    display_rendition,
    load_rgb8,
    probe,
    thumbnail,
)

LIMIT = 1_000_000
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def blocks(width: int = 80, height: int = 60) -> Pixels:
    """A picture of coloured blocks, no two of its quarters alike, gentle on JPEG."""
    coarse = np.random.default_rng(0).integers(0, 255, (height // 20, width // 20, 3), np.uint8)
    return np.kron(coarse, np.ones((20, 20, 1), np.uint8))


def save(folder: Path, image: Image.Image, format: str, **options: Any) -> Path:
    path = folder / "picture"
    image.save(path, format, **options)
    return path


def lying(pixels: Pixels, orientation: int) -> Pixels:
    """The pixels as a camera stores them that writes this EXIF orientation."""
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, 1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels, -1),
    }[orientation]
    return np.ascontiguousarray(stored)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_turned_upright(tmp_path: Path, format: str, orientation: int) -> None:
    upright = blocks()
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = (
        {"quality": 95} if format == "JPEG" else {"lossless": True} if format == "WEBP" else {}
    )
    stored = Image.fromarray(lying(upright, orientation))
    path = save(tmp_path, stored, format, exif=exif, **options)

    picture = probe(path, LIMIT)

    assert (picture.width, picture.height, picture.orientation) == (80, 60, orientation)
    assert picture.stored_size == stored.size
    assert picture.media_type == f"image/{format.lower()}"
    difference = np.abs(load_rgb8(path).astype(int) - upright)
    assert np.median(difference) <= 2
    assert difference.mean() < 6


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_a_tiff_on_its_side_is_not_sheared(tmp_path: Path, mode: str) -> None:
    grey = Image.fromarray(blocks()).convert("L")
    upright = np.asarray(grey)
    if mode == "I;16":
        stored = Image.fromarray(np.rot90(upright.astype(np.uint16) * 257, 1))
    else:
        stored = grey.rotate(90, expand=True).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path, stored, "TIFF", exif=exif)
    assert np.abs(load_rgb8(path)[..., 0].astype(int) - upright).max() <= 1


@pytest.mark.parametrize(
    ("mode", "format"),
    [("1", "PNG"), ("L", "JPEG"), ("P", "PNG"), ("CMYK", "JPEG"), ("RGB", "BMP"), ("LA", "PNG")],
)
def test_every_usual_kind_of_picture_becomes_8_bit_rgb(
    tmp_path: Path, mode: str, format: str
) -> None:
    original = Image.fromarray(blocks()).convert(mode)
    path = save(tmp_path, original, format)
    assert probe(path, LIMIT).width == 80
    pixels = load_rgb8(path)
    assert pixels.shape == (60, 80, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    expected = np.asarray(original.convert("RGB")).astype(int)
    assert np.abs(pixels - expected).mean() < 4


def test_sixteen_bits_are_scaled_over_their_full_range(tmp_path: Path) -> None:
    samples = np.array([[0, 128, 257 * 100, 65535]], dtype=np.uint16)
    for format in ("PNG", "TIFF"):
        path = save(tmp_path, Image.fromarray(samples), format)
        assert load_rgb8(path)[0, :, 0].tolist() == [0, 0, 100, 255]


def test_transparent_parts_lie_over_white_whatever_colour_hides_there(tmp_path: Path) -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = (0, 51, 255)
    path = save(tmp_path, Image.fromarray(rgba), "PNG")
    assert load_rgb8(path).tolist() == [[[255, 255, 255], [244, 204, 204], [200, 0, 0]]]


def test_a_palette_with_a_transparent_entry_is_understood(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    path = save(tmp_path, image, "PNG", transparency=0)
    assert load_rgb8(path).tolist() == [[[255, 255, 255], [40, 50, 60]]]


def test_an_embedded_colour_profile_is_applied(tmp_path: Path) -> None:
    # A profile whose red and blue are exchanged: unmistakable.
    profile = _swapped_profile()
    plain = Image.new("RGB", (4, 4), (220, 40, 40))
    path = save(tmp_path, plain, "PNG", icc_profile=profile)
    red, _, blue = load_rgb8(path)[0, 0].tolist()
    assert blue > red + 100


def test_a_broken_colour_profile_is_as_if_there_were_none(tmp_path: Path) -> None:
    plain = Image.new("RGB", (4, 4), (220, 40, 40))
    path = save(tmp_path, plain, "PNG", icc_profile=b"no profile at all")
    assert load_rgb8(path)[0, 0].tolist() == [220, 40, 40]


def test_a_profile_for_another_kind_of_picture_is_passed_over(tmp_path: Path) -> None:
    plain = Image.new("L", (4, 4), 90)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = save(tmp_path, plain, "PNG", icc_profile=srgb)
    assert load_rgb8(path)[0, 0].tolist() == [90, 90, 90]


def _swapped_profile() -> bytes:
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    data = data.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")
    # Its description must not say sRGB, or it is taken for it.
    return bytes(data.replace(b"s\0R\0G\0B", b"x\0R\0G\0B").replace(b"sRGB", b"xRGB"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"hello, this is a text", "no picture"),
        (b"GIF89a" + bytes(40), "no picture"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no picture"),
    ],
)
def test_a_file_that_is_no_picture_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "picture"
    path.write_bytes(content)
    with pytest.raises(PictureRefused, match=said):
        probe(path, LIMIT)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_picture_that_is_cut_short_is_refused(tmp_path: Path, format: str, kept: float) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    path = save(tmp_path, Image.fromarray(noise), format)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(PictureRefused):
        probe(path, LIMIT)


def test_a_picture_over_the_limit_is_refused_by_its_header_alone(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    path = tmp_path / "picture"
    path.write_bytes(png)
    with pytest.raises(PictureRefused, match="60000 x 60000 pixels; at most 1000000 pixels"):
        probe(path, LIMIT)


def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    path = save(tmp_path, Image.new("RGB", (100, 50)), "PNG")
    assert probe(path, 5000) == Picture(100, 50, "image/png")
    with pytest.raises(PictureRefused, match="100 x 50"):
        probe(path, 4999)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_several_pictures_in_one_file_are_refused(tmp_path: Path, format: str) -> None:
    frames = [Image.new("RGB", (20, 20), (shade, 0, 0)) for shade in (0, 90, 200)]
    path = save(tmp_path, frames[0], format, save_all=True, append_images=frames[1:])
    with pytest.raises(PictureRefused, match="3 pictures"):
        probe(path, LIMIT)


def test_the_first_picture_of_a_phones_mpo_counts(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (40, 30), (250, 0, 0)), Image.new("RGB", (20, 15))
    path = save(tmp_path, first, "MPO", save_all=True, append_images=[second])
    assert probe(path, LIMIT) == Picture(40, 30, "image/jpeg")
    assert load_rgb8(path)[0, 0, 0] > 240


@pytest.mark.parametrize("mode", ["I", "F"])
def test_samples_without_agreed_range_are_refused(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path, Image.new(mode, (8, 8)), "TIFF")
    with pytest.raises(PictureRefused, match="8 or 16 bits"):
        probe(path, LIMIT)


def test_a_missing_file_is_the_machines_trouble_not_the_pictures(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        probe(tmp_path / "nowhere", LIMIT)


def test_a_display_rendition_is_upright_bounded_and_opaque(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path, Image.new("RGBA", (800, 200)), "PNG", exif=exif)
    made = display_rendition(path, 300)
    assert made.media_type == "image/jpeg"
    shown = Image.open(io.BytesIO(made.data))
    assert shown.size == (75, 300)
    assert shown.mode == "RGB"
    assert shown.getpixel((5, 5)) == (255, 255, 255)
    assert Image.open(io.BytesIO(thumbnail(path).data)).size == (64, 256)


def test_a_small_picture_is_not_blown_up_for_display(tmp_path: Path) -> None:
    path = save(tmp_path, Image.new("RGB", (30, 20)), "JPEG")
    assert Image.open(io.BytesIO(display_rendition(path, 2048).data)).size == (30, 20)


@given(data=st.binary(max_size=200), format=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF"]))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd metadata; the answer is what counts
def test_damaged_files_are_read_or_refused_but_never_crash(
    tmp_path: Path, data: bytes, format: str
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (1, 2, 3)).save(buffer, format)
    content = bytearray(buffer.getvalue())
    at = (sum(data) * 7919) % len(content)
    content[at : at + len(data)] = data
    path = tmp_path / "picture"
    path.write_bytes(content)
    try:
        picture = probe(path, LIMIT)
    except PictureRefused:
        return
    assert load_rgb8(path).shape == (picture.height, picture.width, 3)
