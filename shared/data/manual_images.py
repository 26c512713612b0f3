"""Makes the paper's manual images: copies of training images with more contrast and sharper edges."""

from __future__ import annotations

import io
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from shared.data.encode import encode_image
from shared.data.schema import Labels

CONTRAST = 1.5  # the paper names the filters (more contrast, then sharpening), not their strengths


def copied_rows(labels: Labels, which: Literal["rare", "all"], rare: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the rows of `labels` `[n, C]` whose images get a copy; `rare` has the columns of the rare classes."""
    return np.arange(len(labels)) if which == "all" else np.flatnonzero((labels[:, rare] == 1).any(axis=1))


def contrast_and_sharpen(data: bytes) -> bytes:
    """Returns a copy of an encoded image with more contrast, then sharpened, as PNG."""
    with Image.open(io.BytesIO(data)) as image:
        changed = ImageEnhance.Contrast(image.convert("RGB")).enhance(CONTRAST).filter(ImageFilter.SHARPEN)
    return encode_image(changed, png_up_to=math.inf, compress_level=1)
