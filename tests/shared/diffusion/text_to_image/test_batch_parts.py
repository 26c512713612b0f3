from __future__ import annotations

from shared.diffusion.text_to_image.batch_parts import split


def test_images_are_divided_as_equally_as_possible() -> None:
    assert split(5, 2) == [slice(0, 3), slice(3, 5)]
    assert split(3, 3) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert split(4, 1) == [slice(0, 4)]
