"""Encodes images: PNG if they are small, as PNG would be several times the size of a JPEG that looks the same above, else JPEG."""

from __future__ import annotations

import io
from typing import Literal

from PIL import Image

PNG_UP_TO = 128
"""Limits the side in pixels of images that are stored as PNG; larger ones are stored as JPEG."""


def image_format(side: int, png_up_to: float = PNG_UP_TO) -> Literal["PNG", "JPEG"]:
    """Returns the format in which `encode_image` stores an image whose longer side has `side` pixels."""
    return "PNG" if side <= png_up_to else "JPEG"


def encode_image(
    image: Image.Image,
    *,
    png_up_to: float = PNG_UP_TO,
    compress_level: int = 6,
    quality: int = 95,
    optimize: bool = False,
) -> bytes:
    """Returns the image as PNG if its longer side has at most `png_up_to` pixels, else as JPEG; the same pixels give the same bytes.

    `png_up_to=0` always gives JPEG and `math.inf` always PNG. `compress_level` (0 to 9) is PNG's, `quality` (1 to 95) is JPEG's; `optimize`
    makes the file as small as the format allows, which for PNG overrides `compress_level`.
    """
    buffer = io.BytesIO()
    if image_format(max(image.size), png_up_to) == "PNG":
        image.save(buffer, "PNG", compress_level=compress_level, optimize=optimize)
    else:
        image.save(buffer, "JPEG", quality=quality, optimize=optimize)
    return buffer.getvalue()
