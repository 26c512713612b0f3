"""Brings an image of any accepted format into the canonical form: RGB, square, PNG up to 128 px and JPEG (quality 95) above.

JPEG, PNG, WebP, AVIF, JPEG 2000, BMP, GIF, TIFF, PPM, SGI, PCX, QOI and ICO files are accepted: black and white, grey, palette, RGB, CMYK or
YCbCr, with or without alpha, which is composited on white. CMYK is converted by the file's colour profile, if it has one. Of several
frames the first is taken. Grey of 16 or 32 bits or floating point is brought to 8 bits: from `dataset.window`, or if that is not set from
the image's own percentiles.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from shared.config.dataset import Source
from shared.data.encode import encode_image, image_format
from shared.data.metadata import without_metadata
from shared.data.problems import BadImage
from shared.data.source import StoredImage
from shared.data.sources.paths import what_exists

Image.init()  # Pillow registers most formats when one is first needed, and does not know their names before
FORMATS = tuple(
    f
    for f in ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "SGI", "PCX", "QOI", "ICO")
    if f in Image.OPEN
)
OPAQUE = {"1", "L", "P", "RGB", "CMYK", "YCbCr"}
WITH_ALPHA = {"LA", "La", "PA", "RGBA", "RGBa"}
DEEP = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}  # grey of more than 8 bits
PERCENTILES = (0.5, 99.5)
"""Become black and white in a deep image without a window: a few hot or dead pixels would else take the whole range."""
MOST_PIXELS = 1 << 26
"""Limits the pixels of an image, 67 megapixels or 200 MB decoded, unless `dataset.megapixels` does: what unpacks to more may be a bomb."""
BOMB_REMEDY = "set dataset.megapixels higher if it is a real image"
PERHAPS_METADATA = {"truncated", "damaged image", "not an image"}
"""Lists the reasons that damaged metadata may be behind."""
MOST_BYTES = 1 << 28
DAMAGED_METADATA = "damaged metadata were skipped"
BY_PROFILE = "CMYK: converted to sRGB by the colour profile in the file"
HASH_SIDE = 16  # the perceptual hash has HASH_SIDE² = 256 bits
COLOUR_SIDE = 4
SIDEWAYS = {5, 6, 7, 8}  # values of EXIF's orientation: the width is stored as the height

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
    notes: tuple[str, ...] = ()
    """Says what was left out or chosen, in the same words for all images."""


@dataclass(frozen=True)
class Reading:
    """Holds the settings of a data set by which its files are read."""

    window: tuple[float, float] | None = None
    """Gives the values of a deep grey image that become black and white."""
    most_pixels: int = MOST_PIXELS

    @classmethod
    def of(cls, dataset: Source) -> Reading:
        """Returns those of a data set."""
        most = MOST_PIXELS if dataset.megapixels is None else dataset.megapixels * 1_000_000
        return cls(dataset.window, most)

    @contextmanager
    def limiting(self) -> Iterator[None]:
        """Lets Pillow open images of as many pixels, without its warnings of odd metadata and of large images.

        Pillow has one limit for the whole process, and refuses twice as many.
        """
        before = Image.MAX_IMAGE_PIXELS
        if before is not None:
            Image.MAX_IMAGE_PIXELS = max(before, self.most_pixels)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"PIL\.")
                yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


USUAL = Reading()


def canonical(
    content: Path | StoredImage | NDArray[np.uint8],
    resolution: int,
    fit: Literal["squash", "crop", "pad"],
    box: tuple[int, int, int, int] | None = None,
    reading: Reading = USUAL,
) -> Canonical:
    """Brings one image, encoded or pixels `[h, w, 3]` or `[h, w]`, into canonical form; an encoded one that already has it keeps its bytes.

    `resolution` is the side in pixels, `box` (left, top, right, bottom in pixels) is cut out first. Raises BadImage if it cannot be used.
    """
    square, data, notes = _canonical(content, resolution, fit, box, reading)
    return Canonical(
        data,
        hashlib.blake2b(square.tobytes(), digest_size=16).digest(),
        perceptual_hash(square),
        mean_colours(square),
        notes,
    )


def canonical_bytes(
    path: Path, resolution: int, fit: Literal["squash", "crop", "pad"], reading: Reading = USUAL
) -> tuple[bytes, tuple[str, ...]]:
    """Returns the bytes and the notes of `canonical` for a file, without the values by which duplicates are found, which take most of its time.

    Raises BadImage if it cannot be used.
    """
    return _canonical(path, resolution, fit, None, reading)[1:]


def _canonical(
    content: Path | StoredImage | NDArray[np.uint8],
    resolution: int,
    fit: Literal["squash", "crop", "pad"],
    box: tuple[int, int, int, int] | None,
    reading: Reading,
) -> tuple[Image.Image, bytes, tuple[str, ...]]:
    """Returns the square image, its encoded bytes and the notes."""
    if isinstance(content, np.ndarray):
        decoded = _Decoded(Image.fromarray(content).convert("RGB"), None, ())
    else:
        data = _read(content) if isinstance(content, Path) else content.read()
        decoded = _decode_anyhow(data, resolution, box, reading)
    square = _square(decoded.image, resolution, fit)
    return square, encode_image(square) if decoded.original is None else decoded.original, decoded.notes


def perceptual_hash(image: Image.Image) -> NDArray[np.uint8]:
    """Returns the perceptual hash (pHash, by DCT) of an image, 256 bits packed into `[32]`."""
    import imagehash  # it imports SciPy, which an exported model does without

    return np.packbits(imagehash.phash(image, hash_size=HASH_SIDE).hash)


def mean_colours(image: Image.Image) -> NDArray[np.uint8]:
    """Returns the mean colours of a 4 x 4 grid over an RGB image, `[48]`."""
    return np.asarray(image.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX)).reshape(-1)


def check_header(content: Path | StoredImage, reading: Reading = USUAL) -> tuple[int, int]:
    """Returns width and height, upright; raises BadImage if the image does not exist or its header shows that it cannot be used. No pixels are read."""
    if isinstance(content, Path):
        _check_file(content)
    try:
        return _size(content if isinstance(content, Path) else io.BytesIO(content.read()), reading)
    except BadImage as error:
        if error.reason not in PERHAPS_METADATA:
            raise
        for less in without_metadata(_read(content) if isinstance(content, Path) else content.read()):
            with suppress(BadImage):
                return _size(io.BytesIO(less), reading)
        raise


def _size(file: Path | io.BytesIO, reading: Reading) -> tuple[int, int]:
    with _refusing(), Image.open(file, formats=FORMATS) as image:
        _check(image, reading)
        width, height = image.size
        known = (
            "exif" in image.info or image.format == "TIFF"
        )  # otherwise Pillow would read the pixels to look for it behind them
        sideways = known and image.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
        return (height, width) if sideways else (width, height)


def _check_file(path: Path) -> None:
    try:
        if not path.is_file():
            reason = "missing file" if not path.exists() else "not a file"
            what = f"does not exist{what_exists(path)}" if reason == "missing file" else "is not a regular file"
            raise BadImage(reason, f"{path.name!r} {what}")
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
        raise BadImage("image bomb", f"unpacks to too many pixels ({error}); {BOMB_REMEDY}") from error
    except DAMAGED as error:
        reason = "truncated" if "truncated" in str(error).lower() else "damaged image"
        raise BadImage(reason, f"cannot be decoded ({type(error).__name__}: {str(error)[:100]})") from error


@dataclass(frozen=True)
class _Decoded:
    image: Image.Image
    """Holds the image as RGB, upright and cut to its box."""
    original: bytes | None
    """Holds the file's bytes if it has the canonical form already."""
    notes: tuple[str, ...]


def _decode_anyhow(data: bytes, resolution: int, box: tuple[int, int, int, int] | None, reading: Reading) -> _Decoded:
    """Returns the decoded image, without its metadata if these keep Pillow from reading it; raises BadImage as for the whole file."""
    try:
        return _decode(data, resolution, box, reading)
    except BadImage as error:
        if error.reason not in PERHAPS_METADATA:
            raise
        for less in without_metadata(data):
            with suppress(BadImage):
                decoded = _decode(less, resolution, box, reading)
                return replace(decoded, notes=(*decoded.notes, DAMAGED_METADATA))
        raise


def _decode(data: bytes, resolution: int, box: tuple[int, int, int, int] | None, reading: Reading) -> _Decoded:
    with _refusing(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        notes = _check(image, reading)
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
        profile = image.info.get("icc_profile") if image.mode == "CMYK" else None
        turned = image if upright else ImageOps.exif_transpose(image)
        by_profile = _by_profile(turned, profile) if profile else None
        if profile:
            notes += (DAMAGED_METADATA if by_profile is None else BY_PROFILE,)
        rgb = _rgb(turned, reading) if by_profile is None else by_profile
    return _Decoded(rgb if box is None else _cut(rgb, box), data if original else None, notes)


def _check(image: Image.Image, reading: Reading) -> tuple[str, ...]:
    """Raises BadImage if the header shows that the image cannot be used; returns notes about how it is read."""
    width, height = image.size
    if not width or not height:
        raise BadImage("no pixels", f"has {width} x {height} pixels")
    if width * height > reading.most_pixels:
        raise BadImage(
            "image bomb",
            f"has {width} x {height} pixels, must have at most {reading.most_pixels} in all; {BOMB_REMEDY}",
        )
    if image.mode not in OPAQUE | WITH_ALPHA | DEEP:
        raise BadImage(
            "wrong mode", f"has the mode {image.mode!r}, must be grey, RGB, CMYK or YCbCr; convert it to RGB"
        )
    notes = []
    if image.mode in DEEP:
        notes.append(
            f"grey of more than 8 bits: the percentiles {PERCENTILES[0]:g} and {PERCENTILES[1]:g} of each image became black and white; "
            "dataset.window sets fixed values"
            if reading.window is None
            else f"grey of more than 8 bits: the values {reading.window[0]:g} and {reading.window[1]:g} became black and white"
        )
    # the MPO file of a phone holds the photograph first and then other views of it
    if getattr(image, "is_animated", False) and image.format != "MPO":
        notes.append("several frames: the first one was taken")
    return tuple(notes)


def _rgb(image: Image.Image, reading: Reading) -> Image.Image:
    if image.mode in DEEP:
        return Image.fromarray(_windowed(np.asarray(image), reading.window)).convert("RGB")
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Returns an image of inks as sRGB by the profile that says how they look on paper, or None if that cannot be used."""
    try:
        inks, screen = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, inks, screen, outputMode="RGB")
    except (ImageCms.PyCMSError, *DAMAGED):
        return None


def _windowed(values: NDArray[np.generic], window: tuple[float, float] | None) -> NDArray[np.uint8]:
    """Returns grey values `[h, w]` of any type as 0 to 255; raises BadImage if none is finite."""
    grey = values.astype(np.float64)
    finite = grey[np.isfinite(grey)]
    if not len(finite):
        raise BadImage("no values", "holds no finite value")
    low, high = np.percentile(finite, PERCENTILES) if window is None else window
    scaled = (np.nan_to_num(grey, nan=low, posinf=high, neginf=low) - low) / ((high - low) or 1.0)
    levels: NDArray[np.uint8] = np.rint(scaled.clip(0, 1) * 255).astype(np.uint8)
    return levels


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
