import numpy as np
import pytest

from shared.score import neighbours
from shared.score.neighbours import distance_to_kth, kth_of, squares_of_nearest


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(5, 1, (60, 8)).astype(np.float32)


def test_equals_brute_force_in_blocks_of_few_rows(points: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", 4 * 60 * 7)
    queries = np.random.default_rng(1).normal(5, 1, (23, 8)).astype(np.float32)
    brute = np.sort(np.linalg.norm(queries[:, None].astype(float) - points[None], axis=2), axis=1)
    for k in (1, 5):
        np.testing.assert_allclose(distance_to_kth(queries, points, k), brute[:, k - 1], rtol=1e-5)


def test_a_reference_in_parts_without_the_point_itself(points: np.ndarray) -> None:
    others = np.sort(np.linalg.norm(points[:, None].astype(float) - points[None], axis=2), axis=1)
    rows = np.array([3, 30, 59, 58])
    parts = [squares_of_nearest(points[rows], points[first : first + 29], 3, rows - first) for first in (0, 29, 58)]
    np.testing.assert_allclose(kth_of(parts, 3), others[rows, 3], rtol=1e-5)


def test_a_small_set_gives_the_farthest(points: np.ndarray) -> None:
    three = points[:3]
    farthest = np.linalg.norm(three[:, None] - three[None], axis=2).max(axis=1)
    np.testing.assert_allclose(kth_of([squares_of_nearest(three, three, 5, np.arange(3))], 5), farthest, rtol=1e-5)


def test_nothing_to_be_near_to(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no neighbour in a set of 0"):
        distance_to_kth(points, points[:0], 1)
    with pytest.raises(ValueError, match="no neighbour in a set of 1"):
        kth_of([squares_of_nearest(points[:1], points[:1], 1, np.arange(1))], 1)
