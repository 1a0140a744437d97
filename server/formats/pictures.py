"""Pictures: what we accept, and the one way their pixels are read.

Annotators, models and exports must see the same picture, so every reader goes through `_upright`:
rotated as its EXIF data says, colours brought to sRGB where a profile is embedded, samples scaled
to 8 bits over their full range, transparent parts laid over white (colours hidden under full
transparency are leftovers of the editor, not content).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
# MPO is a JPEG followed by previews, as phones and stereo cameras write it; the first one counts.
MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
}
MAX_SIDE = 65_500  # the longest side that JPEG renditions and every decoder here can hold
THUMBNAIL_SIDE = 256

# Pillow would warn or raise at limits of its own; ours is a setting, checked before decoding.
Image.MAX_IMAGE_PIXELS = None

_ORIENTATION_TAG = 0x0112
_BITS_PER_SAMPLE_TAG = 258
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PROFILE_SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_READABLE_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr"}
# Whose neighbouring samples can be averaged as they are.
_REDUCIBLE_MODES = {"L", "LA", "RGB", "RGBA", "CMYK"}


class PictureRefused(ValueError):
    """A file that is no acceptable picture; the message says what is wrong and what is right."""


@dataclass(frozen=True)
class Picture:
    """What is known of an accepted picture.

    Attributes:
        width, height: pixels of the upright picture.
        media_type: for example `image/jpeg`.
        orientation: the EXIF orientation that was applied, 1..8; from 5 on, the file stores the
            picture lying on its side.
    """

    width: int
    height: int
    media_type: str
    orientation: int = 1

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height as the file stores them, before it is turned upright."""
        turned = self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)


@dataclass(frozen=True)
class Rendition:
    """An encoded picture for browsers."""

    data: bytes
    media_type: str


def _nothing(pixels: int) -> None:
    """What is done on a header unless told otherwise."""


def probe(path: Path, max_pixels: int, on_header: Callable[[int], None] = _nothing) -> Picture:
    """Decode a file completely and say what picture it is.

    Args:
        path: the file; its name and extension do not matter.
        max_pixels: the most pixels allowed; checked against the header before anything is decoded.
        on_header: told the number of pixels before they are decoded; may wait, or raise.

    Raises:
        PictureRefused: no picture, of another format, damaged, too large, or several in one file.
    """
    with _opened(path) as image:
        _check_header(image, max_pixels)
        width, height = image.size
        on_header(width * height)
        # JPEG only: all of the file is read and decoded, at an eighth of the width and height.
        image.draft(None, (1, 1))
        orientation = _load(image)
        if image.mode not in _READABLE_MODES and not image.mode.startswith("I;16"):
            raise _unreadable(image.mode)
        if orientation >= 5 and image.format != "TIFF":  # which has the upright size from the start
            width, height = height, width
        return Picture(width, height, MEDIA_TYPES[str(image.format)], orientation)


def load_rgb8(path: Path) -> npt.NDArray[np.uint8]:
    """The upright picture as a new, writable array (H, W, 3) of 8-bit sRGB.

    Raises:
        PictureRefused: the file cannot be decoded.
    """
    with _opened(path) as image:
        upright, _ = _upright(image)
        return np.array(upright, dtype=np.uint8)


def display_rendition(
    path: Path,
    max_side: int = 2048,
    quality: int = 90,
    on_header: Callable[[int], None] = _nothing,
) -> Rendition:
    """The upright picture as an 8-bit sRGB JPEG whose longer side is at most `max_side` pixels.

    Smaller pictures keep their size. Boxes stay in pixels of the upright original, so a page that
    shows a rendition scales them by the ratio of the widths. `on_header` is as in `probe`.

    Raises:
        PictureRefused: the file cannot be decoded.
    """
    with _opened(path) as image:
        on_header(image.width * image.height)
        image.draft(None, (max_side, max_side))  # JPEG only: decodes at a half, a quarter, …
        upright, _ = _upright(image, max_side)
        upright.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        upright.save(buffer, "JPEG", quality=quality, subsampling=0)
        return Rendition(buffer.getvalue(), "image/jpeg")


def thumbnail(path: Path, on_header: Callable[[int], None] = _nothing) -> Rendition:
    """A small JPEG for lists, at most `THUMBNAIL_SIDE` pixels on its longer side.

    Raises:
        PictureRefused: the file cannot be decoded.
    """
    return display_rendition(path, THUMBNAIL_SIDE, quality=82, on_header=on_header)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    if path.stat().st_size == 0:
        raise PictureRefused("the file is empty; send a JPEG, PNG, WebP, BMP or TIFF picture")
    # Given a path, Pillow maps uncompressed TIFFs into memory and then shears those that lie on
    # their side (it maps them with the upright size); given a stream, it reads them rightly.
    with path.open("rb") as stream:
        try:
            image = Image.open(stream, formats=FORMATS)
        except UnidentifiedImageError as error:
            raise PictureRefused(
                "the file is no picture that can be read; send JPEG, PNG, WebP, BMP or TIFF"
            ) from error
        except Exception as error:  # noqa: BLE001 (parsers of hostile headers raise anything)
            _reraise_if_of_the_machine(error)
            raise PictureRefused(
                f"the picture's header is damaged or cut short ({error})"
            ) from error
        with image:
            yield image


def _reraise_if_of_the_machine(error: Exception) -> None:
    """Let trouble of the machine pass (memory, disk, open files): it is not the picture's fault.

    Decoders raise `OSError` too, but only the operating system gives it a number.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
        raise error


def _check_header(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise PictureRefused(f"the picture is {width} x {height} pixels; it must have some")
    if width * height > max_pixels or max(width, height) > MAX_SIDE:
        raise PictureRefused(
            f"the picture is {width} x {height} pixels; at most {max_pixels} pixels and "
            f"{MAX_SIDE} on a side are allowed: scale it down or cut it into tiles"
        )
    try:
        num_frames = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    except Exception as error:  # noqa: BLE001 (counting the pages of a TIFF walks its structure)
        _reraise_if_of_the_machine(error)
        raise PictureRefused(f"the picture is damaged ({error}); send it anew") from error
    if num_frames > 1:
        raise PictureRefused(
            f"the file holds {num_frames} pictures (an animation, or pages); send one per file"
        )


def _upright(image: Image.Image, max_side: int | None = None) -> tuple[Image.Image, int]:
    """The decoded picture as upright 8-bit sRGB, and the orientation that was applied.

    Where it will be made to fit `max_side`, a much larger one is shrunk to about twice that before
    its colours are converted, which takes less memory than copies of all of it.
    """
    orientation = _load(image)
    is_tiff = image.format == "TIFF"
    try:
        factor = max(image.size) // (2 * max_side) if max_side else 1
        if factor > 1 and image.mode == "1":
            image = image.convert("L")
        if factor > 1 and image.mode in _REDUCIBLE_MODES:
            image = image.reduce(factor)
        rgb = _to_srgb(image)
        if orientation > 1 and not is_tiff:
            rgb = rgb.transpose(_TRANSPOSE[orientation])
    except PictureRefused:
        raise
    except Exception as error:  # noqa: BLE001 (palettes and profiles of damaged files)
        raise _damaged(error) from error
    return rgb, orientation


def _load(image: Image.Image) -> int:
    """Decode a picture, and say which orientation it has; a TIFF is upright afterwards."""
    try:
        # Pillow turns TIFFs upright while loading and forgets the tag; PNGs know theirs only after.
        is_tiff = image.format == "TIFF"
        orientation = _orientation(image) if is_tiff else 1
        image.load()
        return orientation if is_tiff else _orientation(image)
    except Exception as error:  # noqa: BLE001 (decoders of damaged files raise anything)
        raise _damaged(error) from error


def _damaged(error: Exception) -> PictureRefused:
    _reraise_if_of_the_machine(error)
    return PictureRefused(f"the picture is damaged or cut short ({error}); send the whole file")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; unreadable EXIF data says nothing, so the picture stays as it is."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 (EXIF blocks are free-form; damage there is common, harmless)
        return 1
    return value if isinstance(value, int) and value in _TRANSPOSE else 1


def _to_srgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = _sixteen_to_eight_bits(image)
    if image.mode not in _READABLE_MODES:
        raise _unreadable(image.mode)
    alpha = None
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha, colours = rgba.getchannel("A"), rgba.convert("RGB")
    elif image.mode in ("L", "RGB", "CMYK"):
        colours = image
    else:
        colours = image.convert("L" if image.mode == "1" else "RGB")
    colours = _profile_to_srgb(colours, image.info.get("icc_profile"))
    if alpha is None:
        return colours
    over_white = Image.new("RGB", colours.size, "white")
    over_white.paste(colours, mask=alpha)
    return over_white


def _unreadable(mode: str) -> PictureRefused:
    return PictureRefused(
        f"the picture's samples are of kind {mode!r}, which have no agreed brightness or colour; "
        "save it with 8 or 16 bits per sample as grey, RGB or CMYK"
    )


def _sixteen_to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey samples so that full scale becomes 255; nothing is stretched to the content.

    Cutting off the low byte would be nearly the same; converting without scaling, as Pillow's
    `convert("L")` does, clips all but the darkest 256 levels to white.
    """
    bits = 16
    if image.format == "TIFF":
        bits = int(image.tag_v2.get(_BITS_PER_SAMPLE_TAG, (16,))[0])  # type: ignore[attr-defined]
    full_scale = 2**bits - 1
    samples = np.asarray(image).astype(np.uint32)
    grey = (samples * 255 + full_scale // 2) // full_scale
    scaled = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    scaled.info.update({k: v for k, v in image.info.items() if k == "icc_profile"})
    return scaled


def _profile_to_srgb(image: Image.Image, profile_bytes: object) -> Image.Image:
    """Apply an embedded colour profile; a broken or unfitting one is as if there were none."""
    if isinstance(profile_bytes, bytes) and profile_bytes:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_bytes))
            space = profile.profile.xcolor_space.strip()
            is_srgb = "srgb" in ImageCms.getProfileDescription(profile).lower()
            if space == _PROFILE_SPACES[image.mode] and not is_srgb:
                converted = ImageCms.profileToProfile(
                    image,
                    profile,
                    ImageCms.createProfile("sRGB"),
                    renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                    outputMode="RGB",
                    flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
                )
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
            pass
    return image if image.mode == "RGB" else image.convert("RGB")
