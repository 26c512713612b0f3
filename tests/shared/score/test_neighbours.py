import numpy as np
import pytest

from shared.score import neighbours
from shared.score.neighbours import nearest, nearest_other, neighbour_ratio


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(5, 1, (60, 8)).astype(np.float32)


def test_equals_brute_force_in_blocks_of_few_rows(points: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", 4 * 60 * 7)
    queries = np.random.default_rng(1).normal(5, 1, (23, 8)).astype(np.float32)
    brute = np.linalg.norm(queries[:, None].astype(float) - points[None], axis=2)
    found = nearest(queries, points)
    assert found.index.tolist() == brute.argmin(axis=1).tolist()
    np.testing.assert_allclose(found.distance, brute.min(axis=1))
    others = np.linalg.norm(points[:, None].astype(float) - points[None], axis=2) + np.diag(np.full(60, np.inf))
    np.testing.assert_allclose(nearest_other(points).distance, others.min(axis=1))


def test_a_copy_has_ratio_zero_and_a_held_out_image_about_one(points: np.ndarray) -> None:
    own = nearest_other(points).distance
    assert neighbour_ratio(nearest(points[[7]] + 0, points), own)[0] == 0
    held_out = np.random.default_rng(2).normal(5, 1, (200, 8)).astype(np.float32)
    assert 0.7 < np.median(neighbour_ratio(nearest(held_out, points), own)) < 1.5


def test_a_near_copy_far_from_the_origin_keeps_its_distance() -> None:
    points = np.random.default_rng(0).normal(1000, 1, (10, 4)).astype(np.float32)
    copy = points[[3]].copy()
    copy[0, 0] += np.float32(0.001)
    found = nearest(copy, points)
    assert found.index[0] == 3
    assert found.distance[0] == pytest.approx(0.001, rel=0.1)


def test_equal_reference_images_leave_the_ratio_finite(points: np.ndarray) -> None:
    doubled = np.concatenate([points, points[:1]])
    ratio = neighbour_ratio(nearest(points[:1] + 0.5, doubled), nearest_other(doubled).distance)
    assert np.isfinite(ratio).all()
    assert ratio[0] > 100


def test_nothing_to_be_near_to(points: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no reference images"):
        nearest(points, points[:0])
    with pytest.raises(ValueError, match="no neighbour in a set of 1"):
        nearest_other(points[:1])
