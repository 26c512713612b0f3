"""The two-way analysis: mean squares by hand, and how often its interval holds the truth in simulated studies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import ttest_1samp

from shared.data.schema import LabelGroup, LabelSchema
from shared.metrics.analysis import Components
from shared.metrics.counts import DecisionCounts, hits_of
from shared.metrics.influence import influences
from shared.metrics.table import Metric, metric_named
from shared.metrics.two_way import TwoWay

tables = st.tuples(st.integers(2, 6), st.integers(2, 8), st.integers(0, 10_000)).map(
    lambda drawn: np.random.default_rng(drawn[2]).normal(0.1, 1, drawn[:2])
)


@settings(max_examples=50, deadline=None)
@given(tables)
def test_mean_squares_are_those_of_the_fitted_model(table: NDArray[np.float64]) -> None:
    k, n = table.shape
    found = TwoWay.of(table)
    rows, columns = np.divmod(np.arange(k * n), n)
    one = np.ones((k * n, 1))
    of_rows, of_columns = (
        (rows[:, None] == np.arange(k)).astype(float),
        (columns[:, None] == np.arange(n)).astype(float),
    )

    def residual(*terms: NDArray[np.float64]) -> float:
        design = np.hstack(terms)
        return float(((table.ravel() - design @ np.linalg.lstsq(design, table.ravel())[0]) ** 2).sum())

    rest = residual(one, of_rows, of_columns)
    assert found.of_rest == pytest.approx(rest / ((k - 1) * (n - 1)), abs=1e-9)
    assert found.of_repetitions == pytest.approx((residual(one, of_columns) - rest) / (k - 1), abs=1e-9)
    assert found.of_units == pytest.approx((residual(one, of_rows) - rest) / (n - 1), abs=1e-9)
    assert found.variance * k * n >= max(found.of_repetitions, found.of_units) - 1e-12
    assert found.freedom >= k - 1
    low, high = found.interval(0.95)
    assert (low > 0 or high < 0) == (found.p < 0.05)


def test_without_a_component_of_units_it_is_the_t_test_of_the_repetitions() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(0, 1, (8, 50))
    noise -= noise.mean(axis=0) + noise.mean(axis=1, keepdims=True) - noise.mean()
    table = noise + random.normal(0.5, 1, (8, 1))
    found = TwoWay.of(table)
    assert (found.of_units, found.freedom) == (pytest.approx(0, abs=1e-12), 7)
    assert found.p == pytest.approx(ttest_1samp(table.mean(axis=1), 0).pvalue)


def test_components_are_found_again() -> None:
    random = np.random.default_rng(1)
    true = Components(0.01, 0.2, 0.3)
    squares = []
    for _ in range(300):
        table = random.normal(0, 0.01, (10, 1)) + random.normal(0, 0.2, (1, 200)) + random.normal(0, 0.3, (10, 200))
        analysis = TwoWay.of(table)
        squares.append([analysis.variance, *(part**2 for part in vars(analysis.components).values())])
    variance, repetition, unit, rest = np.mean(squares, axis=0)
    assert variance == pytest.approx(true.standard_error(10, 200) ** 2, rel=0.05)
    assert (unit, rest) == (pytest.approx(0.04, rel=0.03), pytest.approx(0.09, rel=0.03))
    assert repetition == pytest.approx(1e-4, rel=0.6)  # above the truth, as negative ones count as 0


def test_no_difference_and_equal_differences() -> None:
    assert TwoWay.of(np.zeros((6, 9))).p == 1.0
    equal = TwoWay.of(np.full((6, 9), 0.1))
    assert (equal.p, equal.interval(0.95)) == (0.0, (pytest.approx(0.1), pytest.approx(0.1)))
    with pytest.raises(ValueError, match="1 repetitions and 9 units"):
        TwoWay.of(np.zeros((1, 9)))


# Simulated studies. An image is told right if a latent score is positive. Its parts are what both arms share (the image), what an arm makes of the
# image in all repetitions, what a repetition of an arm makes of a class, and the rest.
CLASSES = 3
SKILL, GAIN = 0.5, 0.15
DRAWS = 2000
FACTORS = {"repetitions": (0.3, 0.0), "images": (0.0, 0.6), "both": (0.2, 0.5)}
"""The standard deviations of a repetition and of an arm's image; that of the image is 1, that of the rest .5."""
REST = 0.5


def studies(k: int, each: int, factors: str, seed: int, draws: int) -> Iterator[NDArray[np.bool_]]:
    """Yields the decisions `[draws, 2, k, n, C]` of two arms, in portions."""
    random = np.random.default_rng([seed, k, each])
    of_repetition, of_image = FACTORS[factors]
    labels = np.repeat(np.arange(CLASSES), each)
    n, scale = len(labels), np.sqrt(1 + of_image**2 + REST**2)
    for size in [250] * (draws // 250):
        image = random.normal(0, 1, (size, 1, 1, n)) + random.normal(0, of_image, (size, 2, 1, n))
        repetition = random.normal(0, of_repetition, (size, 2, k, CLASSES))[..., labels]
        skill = np.array([SKILL, SKILL + GAIN])[:, None, None]
        right = (skill + repetition) * scale + image + random.normal(0, REST, (size, 2, k, n)) > 0
        wrong = (labels + random.integers(1, CLASSES, (size, 1, 1, n))) % CLASSES
        yield np.where(right, labels, wrong)[..., None] == np.arange(CLASSES)


def true_difference(metric: str, factors: str) -> float:
    """The mean difference over endless repetitions and images: right answers by the normal integral, wrong ones spread evenly."""
    random = np.random.default_rng(7)
    scores = []
    for skill in (SKILL, SKILL + GAIN):
        right = ndtr(skill + random.normal(0, FACTORS[factors][0], (200_000, CLASSES)))
        wrong = (1 - right).sum(axis=1, keepdims=True) - (1 - right)
        f1 = 2 * right / (2 * right + (1 - right) + wrong / (CLASSES - 1))
        scores.append(float((right if metric == "accuracy" else f1).mean()))
    return scores[1] - scores[0]


def coverage(metric: Metric, k: int, each: int, factors: str, seed: int = 0, draws: int = DRAWS) -> float:
    """The share of 95 % intervals that hold the true difference."""
    schema = LabelSchema(groups=(LabelGroup(name="g", classes=tuple("abc"[:CLASSES])),))
    labels = (np.repeat(np.arange(CLASSES), each)[:, None] == np.arange(CLASSES)).astype(np.int8)
    everything, units = np.arange(CLASSES), np.arange(len(labels))
    truth, held = true_difference(metric.name, factors), []
    assert metric.from_counts is not None
    for decided in studies(k, each, factors, seed, draws):
        influence = influences(metric, schema, decided, labels, everything, units)
        values = _scores(metric, schema, decided, labels)
        rows = influence + values[..., None]
        for table in rows[:, 1] - rows[:, 0]:
            low, high = TwoWay.of(table).interval(0.95)
            held.append(low <= truth <= high)
    return float(np.mean(held))


def _scores(
    metric: Metric, schema: LabelSchema, decided: NDArray[np.bool_], labels: NDArray[np.int8]
) -> NDArray[np.float64]:
    assert metric.from_counts is not None
    counts = DecisionCounts(*(hits.sum(axis=-2, dtype=np.float64) for hits in hits_of(decided, labels)))
    return metric.from_counts(schema, counts, np.arange(CLASSES))


@pytest.mark.parametrize(("k", "factors"), [(10, "both"), *((k, factors) for k in (6, 20) for factors in FACTORS)])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_interval_holds_the_truth_as_often_as_it_says(metric: str, k: int, factors: str) -> None:
    assert 0.93 <= coverage(metric_named(metric), k, 20, factors) <= 0.97


@pytest.mark.parametrize("factors", FACTORS)
@pytest.mark.parametrize("each", [5, 10])
def test_with_few_images_of_a_class_it_holds_it_somewhat_less_often(each: int, factors: str) -> None:
    assert coverage(metric_named("macro_f1"), 8, each, factors) >= 0.90
