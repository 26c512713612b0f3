"""What images look like, independent of where the copy gate draws its line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from shared.errors import Stopped
from shared.score import appearance
from shared.score.appearance import COPY_BITS, WHOLE, WINDOWS, Appearances, appearances, features, hash_matches, nearest
from shared.stop import StopSignal
from tests.support.copied_images import copied, garments, generated_set, png

SETS = garments(32, 100, 50, 50)
TRAIN = SETS["train"]
SEEN = appearances(TRAIN, StopSignal())


def of(encoded: list[bytes]) -> Appearances:
    return appearances(generated_set(TRAIN, encoded), StopSignal())


@pytest.mark.parametrize("how", ["exact", "mirrored"])
def test_a_hash_names_the_image_that_was_copied(how: str) -> None:
    index, bits = hash_matches(of(copied(TRAIN, range(30), how)), SEEN)
    assert index.tolist() == list(range(30))
    assert (bits == 0).all()


def test_an_image_like_none_has_no_match() -> None:
    index, bits = hash_matches(appearances(SETS["val"], StopSignal()), SEEN)
    assert (index == -1).all()
    assert (bits == COPY_BITS + 1).all()


def test_a_plain_image_of_another_colour_is_no_copy() -> None:
    plain = [png(Image.new("RGB", (32, 32), colour)) for colour in ("red", "blue", "red")]
    look = of(plain)
    assert hash_matches(look, look)[0].tolist() == [0, 1, 0]


@pytest.mark.parametrize("how", ["exact", "mirrored", "cut by 3 %", "mirrored and cut by 10 %", "jpeg 50"])
def test_the_nearest_is_the_image_that_was_copied(how: str) -> None:
    found = nearest([of(copied(TRAIN, range(30), how))], SEEN, StopSignal())[0]
    assert found.index.tolist() == list(range(30))


def test_exempt_images_are_not_compared() -> None:
    unit = np.arange(100) // 2  # images 2 i and 2 i + 1 are one product
    found = nearest([SEEN], SEEN, StopSignal(), (unit, unit))[0]
    assert (found.index // 2 != np.arange(100) // 2).all()
    one = np.where(np.arange(100) < 50, unit, -1)
    found = nearest([SEEN], SEEN, StopSignal(), (one, unit))[0]
    assert (found.index[50:] == np.arange(50, 100)).all()


def test_distances_are_those_of_the_nearest_window() -> None:
    queries = appearances(SETS["val"], StopSignal())
    shown = [features(each) for each in (queries.thumbnails, queries.thumbnails.flip(3))]
    every = [
        np.linalg.norm(points[:, None] - features(SEEN.thumbnails, window)[None], axis=2)
        for window in WINDOWS
        for points in shown
    ]
    found = nearest([queries], SEEN, StopSignal())[0]
    least = np.min(every, axis=0)
    np.testing.assert_allclose(found.distance, least.min(axis=1), rtol=1e-4)
    assert found.index.tolist() == least.argmin(axis=1).tolist()


def test_the_windows_are_distinct_parts_of_a_thumbnail() -> None:
    assert WINDOWS[0] == WHOLE
    assert len(set(WINDOWS)) == len(WINDOWS) == 46
    assert all(min(left, top) >= 0 and max(left, top) + side <= 48 for left, top, side in WINDOWS)
    corner = torch.zeros((1, 3, 48, 48), dtype=torch.uint8)
    corner[:, :, :4, :4] = 255
    assert features(corner).any()
    assert not features(corner, (4, 4, 44)).any()


def test_it_stops() -> None:
    stop = StopSignal()
    stop.set()
    with pytest.raises(Stopped):
        appearances(TRAIN, stop)
    with pytest.raises(Stopped):
        nearest([SEEN], SEEN, stop)


def test_a_reference_that_is_compared_in_parts_has_the_same_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    queries = appearances(SETS["val"], StopSignal())
    unit = np.arange(100) // 2
    exempt = (np.arange(len(queries)) % 50, unit)
    whole = nearest([queries], SEEN, StopSignal(), exempt)[0]
    monkeypatch.setattr(appearance, "SLAB", 33)
    parts = nearest([queries], SEEN, StopSignal(), exempt)[0]
    assert parts.index.tolist() == whole.index.tolist()
    np.testing.assert_allclose(parts.distance, whole.distance, rtol=1e-4)
