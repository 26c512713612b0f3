"""Tests that manual copies have more contrast and sharper edges, and which images get one."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from shared.data.encode import encode_image
from shared.data.imageset import decode
from shared.data.manual_images import contrast_and_sharpen, copied_rows

LABELS = np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 1], [0, 1, 1]], np.int8)


def test_all_images_or_those_of_rare_classes_get_a_copy() -> None:
    assert copied_rows(LABELS, "all", np.array([2])).tolist() == [0, 1, 2, 3]
    assert copied_rows(LABELS, "rare", np.array([0, 2])).tolist() == [0, 2, 3]
    assert copied_rows(LABELS, "rare", np.zeros(0, np.int64)).tolist() == []


def test_a_copy_has_more_contrast_and_sharper_edges() -> None:
    ramp = np.tile(np.linspace(80, 170, 200).astype(np.uint8)[None, :, None], (200, 1, 3))
    ramp[:, 100:] += 30
    data = encode_image(Image.fromarray(ramp))
    copy = contrast_and_sharpen(data)
    assert Image.open(io.BytesIO(copy)).format == "PNG"
    before, after = (decode(d, 200, "ramp").astype(float) for d in (data, copy))
    assert after.std() > 1.3 * before.std()
    edge, slope = (abs(np.diff(pixels[100, :, 0])) for pixels in (after, before))
    assert edge[97:103].max() > 1.6 * slope[97:103].max()
