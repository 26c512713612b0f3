"""Influences against numeric differentiation of the metric and against the jackknife."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shared.data.schema import LabelGroup, LabelSchema
from shared.metrics.counts import DecisionCounts, count, hits_of
from shared.metrics.influence import influences
from shared.metrics.table import METRICS, Metric, metric_named

SCHEMA = LabelSchema(
    groups=(LabelGroup(name="g", classes=("a", "b", "c")), LabelGroup(name="t", kind="any", classes=("x", "y", "z")))
)
RARE = np.array([2, 4])
JUDGED = [metric for metric in METRICS if metric.verdict]
every_metric = pytest.mark.parametrize("metric", JUDGED, ids=lambda metric: metric.name)


def drawn(seed: int, n: int) -> tuple[NDArray[np.bool_], NDArray[np.int8]]:
    """Decisions and labels of images, some of them unknown: single ones, and whole groups."""
    random = np.random.default_rng(seed)
    labels = np.zeros((n, 6), np.int8)
    labels[np.arange(n), random.integers(0, 3, n)] = 1
    labels[random.random(n) < 0.2, :3] = -1
    labels[:, 3:] = random.choice([-1, 0, 1], (n, 3))
    decided = np.zeros((n, 6), bool)
    decided[np.arange(n), random.integers(0, 3, n)] = True
    decided[:, 3:] = random.random((n, 3)) < 0.4
    return decided, labels


def weighted(
    metric: Metric, decided: NDArray[np.bool_], labels: NDArray[np.int8], weights: NDArray[np.float64]
) -> float:
    """The metric with a weight per image."""
    assert metric.from_counts is not None
    counts = DecisionCounts(*(weights @ hits for hits in hits_of(decided, labels)))
    return float(metric.from_counts(SCHEMA, counts, RARE))


@every_metric
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(5, 60))
def test_it_is_the_derivative_in_the_weight_of_a_unit(metric: Metric, seed: int, n: int) -> None:
    decided, labels = drawn(seed, n)
    units = np.random.default_rng(seed).integers(0, 1 + n // 3, n)
    units = np.unique(units, return_inverse=True)[1]
    found = influences(metric, SCHEMA, decided, labels, RARE, units)
    ones, step, k = np.ones(n), 1e-6, units.max() + 1
    for unit in range(k):
        moved = step * (units == unit)
        up, down = (weighted(metric, decided, labels, ones + sign * moved) for sign in (1, -1))
        assert found[unit] == pytest.approx(k * (up - down) / (2 * step), abs=1e-6 * k, nan_ok=True)
    assert np.nansum(found) == pytest.approx(0, abs=1e-9)


@every_metric
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_with_many_images_it_is_the_jackknife_s(metric: Metric, seed: int) -> None:
    n = 600
    decided, labels = drawn(seed, n)
    found = influences(metric, SCHEMA, decided, labels, RARE, np.arange(n))
    ones = np.ones(n)
    left_out = np.array([weighted(metric, decided, labels, ones - (np.arange(n) == i)) for i in range(n)])
    jackknife = (n - 1) * (left_out.mean() - left_out)
    assert np.corrcoef(found, jackknife)[0, 1] > 0.999
    assert found.std() == pytest.approx(jackknife.std(), rel=0.02)


@every_metric
def test_a_unit_has_the_sum_of_its_images(metric: Metric) -> None:
    decided, labels = drawn(0, 40)
    units = np.arange(40) // 4
    alone = influences(metric, SCHEMA, decided, labels, RARE, np.arange(40))
    joined = influences(metric, SCHEMA, decided, labels, RARE, units)
    assert joined == pytest.approx(alone.reshape(10, 4).sum(axis=1) * 10 / 40)
    shuffled = np.random.default_rng(0).permutation(40)
    assert influences(metric, SCHEMA, decided[shuffled], labels[shuffled], RARE, units[shuffled]) == pytest.approx(
        joined
    )


@every_metric
def test_many_predictions_at_once(metric: Metric) -> None:
    several = [drawn(seed, 30)[0] for seed in range(4)]
    labels = drawn(0, 30)[1]
    found = influences(metric, SCHEMA, np.stack(several).reshape(2, 2, 30, 6), labels, RARE, np.arange(30))
    assert found.shape == (2, 2, 30)
    assert found[1, 0] == pytest.approx(influences(metric, SCHEMA, several[2], labels, RARE, np.arange(30)))


def test_an_accuracy_is_the_mean_of_right_answers() -> None:
    schema = LabelSchema(groups=(LabelGroup(name="g", classes=("a", "b")),))
    labels = np.array([[1, 0], [1, 0], [0, 1], [-1, -1]], np.int8)
    decided = np.array([[1, 0], [0, 1], [0, 1], [1, 0]], bool)
    found = influences(metric_named("accuracy"), schema, decided, labels, np.array([0]), np.arange(4))
    assert found == pytest.approx(
        4 * np.array([1 - 2 / 3, -2 / 3, 1 - 2 / 3, 0]) / 3
    )  # the last image has no known label
    assert count(decided, labels).tp.sum() == 2


def test_a_metric_of_probabilities_has_none() -> None:
    decided, labels = drawn(0, 10)
    with pytest.raises(ValueError, match="ece: has no influence"):
        influences(metric_named("ece"), SCHEMA, decided, labels, RARE, np.arange(10))


def test_of_a_metric_that_is_not_defined_there_is_none() -> None:
    decided, labels = drawn(0, 10)
    labels[:, RARE] = 0
    found = influences(metric_named("rare_macro_f1"), SCHEMA, decided, labels, RARE, np.arange(10))
    assert np.isnan(found).all()
