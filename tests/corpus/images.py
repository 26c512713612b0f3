"""Holds image files: good pixels with bad metadata, modes of every kind, and what is no image."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from shared.config.dataset import FolderSource
from shared.data.canonical import BY_PROFILE, DAMAGED_METADATA, Reading, canonical
from shared.data.decode import decode_images
from shared.data.imageset import decode
from shared.data.problems import Problems
from shared.data.schema import LabelGroup, LabelSchema
from shared.data.source import ImageListing, SourceImage
from shared.stop import StopSignal
from tests.corpus.case import Case
from tests.support.image_files import CLEAN, DAMAGE, SIDE, chunk, cmyk_profile, exif, insert_png, picture

SCHEMA = LabelSchema(groups=(LabelGroup(name="label", kind="one", classes=("odd", "plain")),))


def _read(path: Path, reading: Reading) -> str:
    """Reads a file beside a plain one as `prepare` does; returns what it looks like, and the notes."""
    plain = path.with_name("plain.png")
    plain.write_bytes(CLEAN["PNG RGB"])
    images = [
        SourceImage("odd", "line 1", path, np.array([1, 0], np.int8)),
        SourceImage("plain", "line 2", plain, np.array([0, 1], np.int8)),
    ]
    decoded = decode_images(ImageListing(SCHEMA, images, 2), SIDE, "squash", Problems("fail"), StopSignal(), reading)
    pixels = decode(decoded.encoded[0], SIDE, "odd").astype(int)
    corners = [tuple(pixels[y, x].tolist()) for y, x in ((1, 1), (1, -2), (-2, 1), (-2, -2))]
    return f"corners {corners} notes {decoded.notes}"


def _file(data: Callable[[], bytes], **settings: Any) -> Callable[[Path], object]:
    """Returns an attempt that reads a file with these bytes."""

    def attempt(folder: Path) -> object:
        path = folder / "odd"
        path.write_bytes(data())
        return _read(path, Reading.of(FolderSource(source="folder", root="x", **settings)))

    return attempt


def _saved(image: Callable[[], Image.Image], format: str, **options: Any) -> Callable[[], bytes]:
    def data() -> bytes:
        buffer = io.BytesIO()
        image().save(buffer, format, **options)
        return buffer.getvalue()

    return data


def _same_pixels(clean: str, damage: str) -> Callable[[Path], object]:
    """Returns an attempt that says whether a file with damaged metadata has the pixels of the clean one."""

    def attempt(folder: Path) -> object:
        kind = clean.split()[0]
        (folder / "odd").write_bytes(DAMAGE[kind][damage](CLEAN[clean]))
        (folder / "clean").write_bytes(CLEAN[clean])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            odd, whole = (canonical(folder / name, SIDE, "squash").digest for name in ("odd", "clean"))
        return "same pixels" if odd == whole else "other pixels"

    return attempt


def _solid(mode: str, colour: Any, side: int = 40) -> Callable[[], Image.Image]:
    return lambda: Image.new(mode, (side, side), colour)


def _array(values: Callable[[], np.ndarray[Any, Any]]) -> Callable[[], Image.Image]:
    return lambda: Image.fromarray(values())


def _ramp(kind: Any, factor: float) -> Callable[[], np.ndarray[Any, Any]]:
    return lambda: (np.arange(1600).reshape(40, 40) * factor).astype(kind)


def _header(width: int, height: int) -> bytes:
    """Returns a PNG that claims this size and holds no pixels."""
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b""))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", body) + pixels + chunk(b"IEND", b"")


def _half(name: str) -> Callable[[], bytes]:
    return lambda: CLEAN[name][: len(CLEAN[name]) // 2]


def _animated(format: str) -> Callable[[], bytes]:
    second = Image.new("RGB", (40, 40), (0, 0, 200))
    return _saved(_solid("RGB", (200, 0, 0)), format, save_all=True, append_images=[second])


def _flipped_pixel() -> bytes:
    data = bytearray(CLEAN["PNG RGB"])
    data[-20] ^= 0xFF
    return bytes(data)


def _palette() -> Image.Image:
    image = Image.new("P", (40, 40), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    return image


RED = "corners [(200, 0, 0), (200, 0, 0), (200, 0, 0), (200, 0, 0)]"
WHITE = "corners [(255, 255, 255), (255, 255, 255), (255, 255, 255), (255, 255, 255)]"
WINDOWED = "1 images: grey of more than 8 bits: the percentiles 0.5 and 99.5"
FIRST = "1 images: several frames: the first one was taken"
TURNED = _saved(lambda: picture("RGB").convert("RGB"), "JPEG", exif=exif(6), quality=95)

METADATA = [
    Case(f"{clean}: {damage}", _same_pixels(clean, damage), 0, ("same pixels",))
    for clean in ("PNG palette", "JPEG RGB", "WEBP RGBA")
    for damage in DAMAGE[clean.split()[0]]
]
READ = [
    Case("one bit", _file(_saved(_solid("1", 1), "PNG")), 0, (WHITE,)),
    Case("grey", _file(_saved(_solid("L", 90), "PNG")), 0, ("(90, 90, 90)",)),
    Case("a palette", _file(_saved(_palette, "PNG")), 0, ("(10, 200, 30)",)),
    Case("a palette with transparency", _file(_saved(_palette, "PNG", transparency=1)), 0, (WHITE,)),
    Case("a palette with degrees of transparency", _file(_saved(_palette, "PNG", transparency=b"\xff\x00")), 0, (WHITE,)),
    Case("RGB with a transparent colour", _file(_saved(_solid("RGB", (9, 9, 9)), "PNG", transparency=(9, 9, 9))), 0, (WHITE,)),
    Case("grey with alpha", _file(_saved(_solid("LA", (0, 0)), "PNG")), 0, (WHITE,)),
    Case("RGBA, half transparent", _file(_saved(_solid("RGBA", (200, 0, 0, 0)), "PNG")), 0, (WHITE,)),
    Case("RGBA in TIFF", _file(_saved(_solid("RGBA", (200, 0, 0, 255)), "TIFF")), 0, (RED,)),
    Case("CMYK in JPEG", _file(_saved(_solid("CMYK", (0, 255, 255, 0)), "JPEG", quality=100)), 0, ("corners [(25",)),
    Case("CMYK in TIFF", _file(_saved(_solid("CMYK", (0, 255, 255, 0)), "TIFF")), 0, ("(255, 0, 0)",)),
    *(
        Case(f"CMYK with its profile in {format}", _file(_saved(_solid("CMYK", (0, 255, 255, 0)), format, icc_profile=cmyk_profile(), **options)),
            0, ("corners [(214, 61, 56)", BY_PROFILE), ("corners [(25", DAMAGED_METADATA))
        for format, options in (("JPEG", {"quality": 100}), ("TIFF", {}))
    ),
    Case("CMYK with its profile, turned", _file(_saved(_solid("CMYK", (0, 255, 255, 0)), "JPEG", icc_profile=cmyk_profile(), exif=exif(6), quality=100)),
        0, ("corners [(214, 61, 56)", BY_PROFILE)),
    *(
        Case(f"CMYK with a profile that is {what}", _file(_saved(_solid("CMYK", (0, 255, 255, 0)), "JPEG", icc_profile=profile, quality=100)),
            0, ("corners [(25", DAMAGED_METADATA), (BY_PROFILE,))
        for what, profile in {
            "none": b"no profile",
            "cut short": cmyk_profile()[:200],
            "damaged": cmyk_profile()[:140] + b"\xff" * 8 + cmyk_profile()[148:],
            "of RGB": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        }.items()
    ),
    Case("RGB with the profile of another space", _file(_saved(_solid("RGB", (200, 0, 0)), "PNG", icc_profile=cmyk_profile())), 0, (RED,), (BY_PROFILE,)),
    Case("YCbCr in TIFF", _file(_saved(lambda: Image.new("RGB", (40, 40), (200, 0, 0)).convert("YCbCr"), "TIFF")), 0, ("corners [(199, 0, 0)",)),
    Case("16-bit PNG", _file(_saved(_array(_ramp(np.uint16, 40)), "PNG")), 0, (WINDOWED,)),
    Case("16-bit PNG with a window", _file(_saved(_array(_ramp(np.uint16, 40)), "PNG"), window=(0, 1)), 0, ("the values 0 and 1 became", WHITE)),
    Case("16-bit TIFF", _file(_saved(_array(_ramp(np.uint16, 40)), "TIFF")), 0, (WINDOWED,)),
    Case("16-bit TIFF of the other byte order", _file(_saved(lambda: Image.frombytes("I;16B", (40, 40), _ramp(">u2", 40)().tobytes()), "TIFF")),
        0, (WINDOWED,)),
    Case("16-bit PGM", _file(_saved(_array(_ramp(np.uint16, 40)), "PPM")), 0, (WINDOWED,)),
    Case("signed 16-bit TIFF", _file(_saved(lambda: Image.fromarray(_ramp(np.int32, -9)()), "TIFF")), 0, (WINDOWED,)),
    Case("32-bit TIFF", _file(_saved(_array(_ramp(np.int32, 1e6)), "TIFF")), 0, (WINDOWED,)),
    Case("floating point in TIFF", _file(_saved(_array(_ramp(np.float32, 1e-6)), "TIFF")), 0, (WINDOWED,)),
    Case("floating point with holes", _file(_saved(_array(lambda: np.where(_ramp(float, 1)() < 9, np.nan, _ramp(float, 1)()).astype(np.float32)), "TIFF")),
        0, (WINDOWED,)),
    Case("16-bit grey of one value", _file(_saved(_array(lambda: np.full((40, 40), 700, np.uint16)), "PNG")), 0, ("(0, 0, 0)",)),
    Case("16-bit RGB in PNG", _file(lambda: _png16()), 0, (RED,)),
    Case("an animated GIF", _file(_animated("GIF")), 0, (RED, FIRST)),
    Case("an animated PNG", _file(_animated("PNG")), 0, (RED, FIRST)),
    Case("an animated WebP", _file(_animated("WEBP")), 0, ("corners [(", FIRST)),
    Case("a TIFF of several pages", _file(_animated("TIFF")), 0, (RED, FIRST)),
    Case("a photograph of a phone with two views", _file(_animated("MPO")), 0, ("corners [(",), ("several frames", "pl4nted-s3cret")),
    Case("AVIF", _file(_saved(_solid("RGB", (200, 0, 0)), "AVIF", quality=100)), 0, ("corners [(",)),
    Case("JPEG 2000", _file(_saved(_solid("RGB", (200, 0, 0)), "JPEG2000")), 0, (RED,)),
    Case("BMP", _file(_saved(_solid("RGB", (200, 0, 0)), "BMP")), 0, (RED,)),
    Case("a turned JPEG", _file(TURNED), 0, ("corners [(1",)),
    Case("an EXIF orientation of 77", _file(lambda: insert_png(CLEAN["PNG RGB"], chunk(b"eXIf", exif(77)[6:]))),
        0, ("corners [(9, 114, 9), (93, 198, 114)",)),
    Case("a thin image", _file(_saved(lambda: Image.new("RGB", (9000, 1), (200, 0, 0)), "PNG")), 0, (RED,)),
    Case("one pixel", _file(_saved(_solid("RGB", (200, 0, 0), 1), "PNG")), 0, (RED,)),
    Case("more pixels than usual, as set", _file(_saved(lambda: Image.new("1", (9000, 8000), 1), "PNG"), megapixels=72), 0, (WHITE,)),
]  # fmt: skip
REFUSED = [
    Case("no bytes", _file(lambda: b""), 2, ("empty file", "has 0 bytes", "dataset.on_bad: skip")),
    Case("text", _file(lambda: b"no image at all"), 2, ("not an image", "is in none of the formats JPEG, PNG")),
    Case("a page in place of an image", _file(lambda: b"<!DOCTYPE html><html><body>404"), 2, ("not an image",)),
    Case("a pointer of Git LFS", _file(lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"), 2, ("not an image",)),
    Case("PostScript", _file(lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), 2, ("not an image",)),
    Case("PDF", _file(lambda: b"%PDF-1.7\n"), 2, ("not an image",)),
    Case("SVG", _file(lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 2, ("not an image",)),
    Case("half a JPEG", _file(_half("JPEG RGB")), 2, ("bad in all",)),
    Case("half a PNG", _file(_half("PNG RGB")), 2, ("truncated", "bad in all")),
    Case("half a WebP", _file(_half("WEBP RGB")), 2, ("bad in all",)),
    Case("a changed byte among the pixels", _file(_flipped_pixel), 2, ("bad in all",)),
    Case("only the first bytes of a PNG", _file(lambda: CLEAN["PNG RGB"][:20]), 2, ("bad in all",)),
    Case("a PNG of no width", _file(lambda: _header(0, 9)), 2, ("bad in all",)),
    Case("a bomb by its header", _file(lambda: _header(60_000, 60_000)), 2, ("image bomb", "set dataset.megapixels higher")),
    Case("a bomb that unpacks", _file(_saved(lambda: Image.new("1", (9000, 8000)), "PNG")),
        2, ("has 9000 x 8000 pixels, must have at most 67108864", "set dataset.megapixels higher")),
    Case("colours of LAB", _file(_saved(lambda: Image.new("LAB", (9, 9)), "TIFF")), 2, ("wrong mode", "convert it to RGB")),
    Case("floating point without a value", _file(_saved(_array(lambda: np.full((9, 9), np.nan, np.float32)), "TIFF")), 2, ("no finite value",)),
    Case("no file", lambda folder: _read(folder / "absent", Reading()), 2, ("missing file", "does not exist")),
    Case("a folder", lambda folder: ((folder / "odd").mkdir(), _read(folder / "odd", Reading())), 2, ("not a file",)),
]  # fmt: skip
CASES = [*METADATA, *READ, *REFUSED]


def _png16() -> bytes:
    """Returns a PNG with 16 bits per channel, of one red."""
    body = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)
    row = b"\0" + b"\xc8\x00\x00\x00\x00\x00" * SIDE
    pixels = chunk(b"IDAT", zlib.compress(row * SIDE))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", body) + pixels + chunk(b"IEND", b"")
