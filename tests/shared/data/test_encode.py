from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shared.data.encode import encode_image, image_format


def noisy(side: int, height: int | None = None) -> Image.Image:
    steps = np.random.default_rng(side).standard_normal((height or side, side, 3)).cumsum(axis=0).cumsum(axis=1)
    return Image.fromarray((steps * 9 + 128).clip(0, 255).astype(np.uint8))


def by_pillow(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_small_images_are_png_and_large_ones_jpeg() -> None:
    assert encode_image(noisy(128)) == by_pillow(noisy(128), "PNG", compress_level=6)
    assert encode_image(noisy(129)) == by_pillow(noisy(129), "JPEG", quality=95)
    assert encode_image(noisy(20, 129)).startswith(b"\xff\xd8")  # the longer side counts
    assert [image_format(128), image_format(129), image_format(129, 200)] == ["PNG", "JPEG", "PNG"]


@pytest.mark.parametrize(
    ("side", "options", "kind", "same"),
    [
        (64, {"png_up_to": 64, "quality": 85, "optimize": True}, "PNG", {"optimize": True}),
        (65, {"png_up_to": 64, "quality": 85, "optimize": True}, "JPEG", {"quality": 85, "optimize": True}),
        (64, {"png_up_to": 0, "quality": 85}, "JPEG", {"quality": 85}),
        (300, {"png_up_to": math.inf, "compress_level": 1}, "PNG", {"compress_level": 1}),
    ],
)
def test_every_option_reaches_the_file(side: int, options: dict[str, Any], kind: str, same: dict[str, Any]) -> None:
    found = encode_image(noisy(side), **options)
    assert found == by_pillow(noisy(side), kind, **same)
    assert found != by_pillow(noisy(side), kind)
