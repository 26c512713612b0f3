from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.look.lookalikes import find_lookalikes


def images(train: int = 400, test: int = 60) -> tuple[NDArray[np.float32], NDArray[np.str_]]:
    features = np.random.default_rng(0).normal(size=(train + test, 16)).astype(np.float32)
    return features, np.array(["train"] * train + ["test"] * test)


def test_images_of_two_splits_that_are_very_near_are_found_nearest_first() -> None:
    features, split = images()
    features[410], features[420] = features[7] + 0.1, features[9] + 0.01
    found = find_lookalikes(features, split, np.arange(len(split)), set())
    assert [(each.image, each.other) for each in found[:2]] == [(420, 9), (410, 7)]
    assert all(0 <= each.distance < 1 for each in found)
    assert len(found) <= 6  # about one in a hundred of the other 58 is as near by chance


def test_copies_are_listed_elsewhere_and_do_not_decide_what_is_near() -> None:
    features, split = images()
    unit = np.arange(len(split))
    for copy in range(50, 100):  # an eighth of the training images, each a copy of another
        features[copy], unit[copy] = features[copy - 50], unit[copy - 50]
    features[410], features[420] = features[7] + 0.1, features[9]
    unit[420] = 9
    found = find_lookalikes(features, split, unit, {(9, 420), (59, 420)})
    assert (410, 7) in [(each.image, each.other) for each in found]
    assert 420 not in [each.image for each in found]


def test_each_later_split_is_compared_with_all_earlier_ones() -> None:
    features, split = images()
    split[300:400] = "val"
    features[410], features[320] = features[310] + 0.01, features[5] + 0.01
    found = {(each.image, each.other) for each in find_lookalikes(features, split, np.arange(len(split)), set())}
    assert {(410, 310), (320, 5)} <= found


@pytest.mark.parametrize("split", [[""] * 460, ["train"] * 460, ["train"] * 50 + ["test"] * 410 + [""] * 0])
def test_without_two_splits_or_enough_images_none_is_found(split: list[str]) -> None:
    features, _ = images()
    found = find_lookalikes(features[:99], np.array(split[:99]), np.arange(99), set())
    assert found == []
