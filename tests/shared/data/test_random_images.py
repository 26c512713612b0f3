"""Tests the images on which work is timed."""

from __future__ import annotations

import numpy as np

from shared.data.imageset import decode
from shared.data.random_images import random_images
from shared.data.schema import LabelGroup, LabelSchema

SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="colour", kind="one", classes=("red", "blue")),
        LabelGroup(name="size", kind="one", classes=("s", "m", "l")),
    )
)


def test_they_are_the_same_each_time_and_have_a_class_of_each_group() -> None:
    images, again = random_images(SCHEMA, 24, 10), random_images(SCHEMA, 24, 10)
    assert images.encoded == again.encoded
    assert len(set(images.encoded)) == len(images) == 10
    assert decode(images.encoded[0], 24, images.paths[0]).shape == (24, 24, 3)
    for columns in SCHEMA.slices().values():
        np.testing.assert_array_equal(images.labels[:, columns].sum(axis=1), 1)
