import numpy as np
import pytest

from shared.score.distribution import kernel_distance, precision_recall_density_coverage


def normal(n: int, mean: float = 0.0, spread: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, spread, (n, 16)).astype(np.float32)


def test_kid_is_zero_for_one_distribution_and_grows_with_the_shift() -> None:
    real = normal(800)
    same = kernel_distance(real, normal(900, seed=1), 0)
    near = kernel_distance(real, normal(900, 0.5, seed=1), 0)
    far = kernel_distance(real, normal(900, 1.0, seed=1), 0)
    assert same is not None
    assert near is not None
    assert far is not None
    assert abs(same) < 0.02
    assert same < near < far


def test_kid_equals_its_definition() -> None:
    x, y = normal(6), normal(6, 0.3, seed=1)
    k = lambda a, b: (float(np.dot(a.astype(float), b)) / 16 + 1) ** 3  # noqa: E731
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    within = sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs) / 30
    between = sum(k(a, b) for a in x for b in y) / 36
    assert kernel_distance(x, y, 0) == pytest.approx(within - 2 * between)


def test_measures_equal_their_definitions() -> None:
    real, generated = normal(40), normal(30, 0.5, 0.7, seed=1)

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.linalg.norm(a[:, None].astype(float) - b[None], axis=2)

    real_radius = np.sort(distances(real, real), axis=1)[:, 5]
    generated_radius = np.sort(distances(generated, generated), axis=1)[:, 5]
    between = distances(real, generated)
    found = precision_recall_density_coverage(real, generated)
    assert found["precision"] == pytest.approx((between < real_radius[:, None]).any(axis=0).mean())
    assert found["recall"] == pytest.approx((between < generated_radius[None]).any(axis=1).mean())
    assert found["density"] == pytest.approx((between < real_radius[:, None]).sum(axis=0).mean() / 5)
    assert found["coverage"] == pytest.approx((between.min(axis=1) < real_radius).mean())


def test_few_repeated_images_are_precise_and_cover_little() -> None:
    real = normal(300)
    found = precision_recall_density_coverage(real, np.repeat(real[:3], 20, axis=0))
    assert found["precision"] == 1.0
    assert found["recall"] is not None
    assert found["recall"] < 0.1
    assert found["coverage"] is not None
    assert found["coverage"] < 0.5


def test_too_few_images_have_no_measure() -> None:
    assert kernel_distance(normal(1), normal(9), 0) is None
    assert set(precision_recall_density_coverage(normal(5), normal(9)).values()) == {None}
