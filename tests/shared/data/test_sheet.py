import numpy as np
import pytest

from shared.data.sheet import contact_sheet


def test_every_image_keeps_its_place_and_colour() -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    images = [np.full((16, 16, 3), colour, np.uint8) for colour in colours]
    sheet = contact_sheet(images, ["a", "b\nc", ""], columns=2, side=32)
    pixels = np.asarray(sheet)
    assert tuple(pixels[20, 20]) == colours[0]
    assert tuple(pixels[20, 20 + 36]) == colours[1]
    assert tuple(pixels[20 + 36 + 24, 20]) == colours[2]
    assert sheet.size == (2 * 36 + 4, 2 * (36 + 24) + 4)


def test_a_large_image_is_averaged_and_a_long_caption_cut() -> None:
    checker = np.indices((128, 128)).sum(axis=0) % 2 * 255
    image = np.repeat(checker[..., None], 3, axis=2).astype(np.uint8)
    sheet = contact_sheet([image], ["a caption much wider than its image"], columns=5, side=64)
    assert sheet.width == 64 + 8
    assert 126 <= np.asarray(sheet)[30, 30, 0] <= 129


def test_a_caption_is_missing() -> None:
    with pytest.raises(ValueError, match="as many captions as images, got 1 and 0"):
        contact_sheet([np.zeros((8, 8, 3), np.uint8)], [], columns=1)
