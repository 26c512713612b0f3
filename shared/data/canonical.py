"""Brings an image of any accepted format into the canonical form: RGB, square, PNG up to 128 px and JPEG (quality 95) above.

JPEG, PNG, WebP, AVIF, BMP, GIF, TIFF and PPM files are accepted if they have one frame and 8 bits per channel: grey, palette, RGB, CMYK or
YCbCr, with or without alpha (which is composited on white). 16-bit, 32-bit and floating-point images are refused, as their range is not known:
scale them to 8 bits first.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from shared.data.encode import encode_image, image_format
from shared.data.problems import BadImage

Image.init()  # Pillow registers most formats when one is first needed, and does not know their names before
FORMATS = tuple(f for f in ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM") if f in Image.OPEN)
OPAQUE = {"1", "L", "P", "RGB", "CMYK", "YCbCr"}
WITH_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
MOST_PIXELS = 1 << 26  # 67 megapixels, 200 MB decoded: anything larger is a decompression bomb, or no training image
MOST_BYTES = 1 << 28
HASH_SIDE = 16  # the perceptual hash has HASH_SIDE² = 256 bits
COLOUR_SIDE = 4

# Pillow's decoders raise any of these on damaged files
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError, TypeError, OverflowError, ZeroDivisionError)  # fmt: skip


@dataclass(frozen=True)
class Canonical:
    """Holds an image in canonical form, with the values by which duplicates are found."""

    data: bytes
    """Holds the encoded image, PNG or JPEG."""
    digest: bytes
    """Holds a hash of the pixels, which is equal for equal pixels, whatever the file format was."""
    perceptual: NDArray[np.uint8]
    """Holds its `perceptual_hash`, `[32]`."""
    colours: NDArray[np.uint8]
    """Holds its `mean_colours`, `[48]`: the perceptual hash ignores colour and plain areas."""


def canonical(
    content: Path | NDArray[np.uint8],
    resolution: int,
    fit: Literal["squash", "crop", "pad"],
    box: tuple[int, int, int, int] | None = None,
) -> Canonical:
    """Brings one image, a file or pixels `[h, w, 3]` or `[h, w]`, into canonical form; a file that already has it keeps its bytes.

    `resolution` is the side in pixels, `box` (left, top, right, bottom in pixels) is cut out first. Raises BadImage if it cannot be used.
    """
    square, data = _canonical(content, resolution, fit, box)
    return Canonical(
        data,
        hashlib.blake2b(square.tobytes(), digest_size=16).digest(),
        perceptual_hash(square),
        mean_colours(square),
    )


def canonical_bytes(path: Path, resolution: int, fit: Literal["squash", "crop", "pad"]) -> bytes:
    """Returns the bytes of `canonical`'s image without the values by which duplicates are found, which take most of its time."""
    return _canonical(path, resolution, fit, None)[1]


def _canonical(
    content: Path | NDArray[np.uint8],
    resolution: int,
    fit: Literal["squash", "crop", "pad"],
    box: tuple[int, int, int, int] | None,
) -> tuple[Image.Image, bytes]:
    """Returns the square image and its encoded bytes."""
    if isinstance(content, Path):
        data = _read(content)
        image, original = _decode(data, resolution, box)
    else:
        data, image, original = b"", Image.fromarray(content).convert("RGB"), False
    square = _square(image, resolution, fit)
    return square, data if original else encode_image(square)


def perceptual_hash(image: Image.Image) -> NDArray[np.uint8]:
    """Returns the perceptual hash (pHash, by DCT) of an image, 256 bits packed into `[32]`."""
    import imagehash  # it imports SciPy, which an exported model does without

    return np.packbits(imagehash.phash(image, hash_size=HASH_SIDE).hash)


def mean_colours(image: Image.Image) -> NDArray[np.uint8]:
    """Returns the mean colours of a 4 x 4 grid over an RGB image, `[48]`."""
    return np.asarray(image.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX)).reshape(-1)


def check_header(path: Path) -> None:
    """Raises BadImage if the file does not exist or its header shows that it cannot be used; the pixels are not read."""
    _check_file(path)
    with _refusing(), Image.open(path, formats=FORMATS) as image:
        _check(image)


def _check_file(path: Path) -> None:
    try:
        if not path.is_file():
            reason = "missing file" if not path.exists() else "not a file"
            raise BadImage(
                reason, f"{path.name!r} {'does not exist' if reason == 'missing file' else 'is not a regular file'}"
            )
        size = path.stat().st_size
        if not 0 < size <= MOST_BYTES:
            raise BadImage("empty file" if not size else "too large", f"{path.name!r} has {size} bytes")
    except OSError as error:
        raise BadImage("unreadable file", f"{path.name!r} cannot be read ({error.strerror})") from error


def _read(path: Path) -> bytes:
    _check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadImage("unreadable file", f"{path.name!r} cannot be read ({error.strerror})") from error


@contextmanager
def _refusing() -> Iterator[None]:
    """Raises BadImage instead of the errors of Pillow."""
    try:
        yield
    except UnidentifiedImageError:
        raise BadImage("not an image", f"is in none of the formats {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise BadImage("image bomb", f"unpacks to too many pixels ({error})") from error
    except DAMAGED as error:
        reason = "truncated" if "truncated" in str(error).lower() else "damaged image"
        raise BadImage(reason, f"cannot be decoded ({type(error).__name__}: {str(error)[:100]})") from error


def _decode(data: bytes, resolution: int, box: tuple[int, int, int, int] | None) -> tuple[Image.Image, bool]:
    """Returns the image as RGB, upright and cut to its box, and whether its file has the canonical form already."""
    with _refusing(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check(image)
        upright = image.getexif().get(0x0112, 1) == 1
        original = (
            image.format == image_format(resolution)
            and image.mode == "RGB"
            and image.size == (resolution, resolution)
            and upright
            and box is None
            and "transparency" not in image.info
        )
        if box is None:
            # a large JPEG is decoded at half, a quarter or an eighth of its size if that is still twice the resolution
            image.draft(None, (2 * resolution, 2 * resolution))
        rgb = _rgb(image if upright else ImageOps.exif_transpose(image))
    return (rgb if box is None else _cut(rgb, box)), original


def _check(image: Image.Image) -> None:
    width, height = image.size
    if not width or not height:
        raise BadImage("no pixels", f"has {width} x {height} pixels")
    if width * height > MOST_PIXELS:
        raise BadImage("image bomb", f"has {width} x {height} pixels, must have at most {MOST_PIXELS} in all")
    if image.mode not in OPAQUE | WITH_ALPHA:
        raise BadImage("wrong mode", f"has the mode {image.mode!r}, must have 8 bits per channel; convert it to RGB")
    # the MPO file of a phone holds the photograph first and then other views of it
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise BadImage("several frames", "holds several frames; keep one")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _cut(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    left, top, right, bottom = max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height)
    if left >= right or top >= bottom:
        raise BadImage("unusable box", f"its box {box} lies outside its {image.width} x {image.height} pixels")
    return image.crop((left, top, right, bottom))


def _square(image: Image.Image, resolution: int, fit: Literal["squash", "crop", "pad"]) -> Image.Image:
    if image.size == (resolution, resolution):
        return image
    if fit == "squash":
        return _resize(image, resolution, resolution)
    if fit == "crop":
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return _resize(image.crop((left, top, left + side, top + side)), resolution, resolution)
    longest = max(image.size)
    # it is resized first: a long thin image, padded first, would take too much memory
    inner = _resize(image, *(max(1, round(side * resolution / longest)) for side in image.size))
    square = Image.new("RGB", (resolution, resolution), _border_colour(inner))
    square.paste(inner, ((resolution - inner.width) // 2, (resolution - inner.height) // 2))
    return square


def _resize(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)


def _border_colour(image: Image.Image) -> tuple[int, int, int]:
    """Returns the median colour of the outermost pixels."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(border, axis=0).astype(int).tolist()
    return red, green, blue
