"""The analysis of folds: its formulas, pseudo-values of F1, and small simulated studies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student

from shared.data.schema import LabelGroup, LabelSchema
from shared.metrics.analysis import Components
from shared.metrics.counts import DecisionCounts, Floats, class_f1, count, mean_defined, ratio
from shared.metrics.forecast import PowerForecast, assumed_components
from shared.metrics.influence import influences_on
from shared.metrics.outer_folds import OuterFolds, pseudo_rows
from shared.metrics.verdict import Measured, compare

SCHEMA = LabelSchema(groups=(LabelGroup(name="kind", classes=("a", "b", "c")),))
BOTH_TESTS = 0.05
DRAWS = 2000


def macro_f1(counts: DecisionCounts) -> Floats:
    return mean_defined(class_f1(counts))


def test_the_formulas() -> None:
    rows = [np.array([0.01, 0.03]), np.array([0.02, 0.06, 0.04]), np.array([0.0, 0.02])]
    found = OuterFolds.of_rows(rows)
    assert found is not None
    values = [0.02, 0.04, 0.01]
    assert (found.repetitions, found.units, found.freedom) == (3, 7, 2)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.variance == pytest.approx((1 / 3 + 1 / 2) * np.var(values, ddof=1))
    assert found.p == pytest.approx(2 * student.sf(found.mean / math.sqrt(found.variance), 2))
    half = student.ppf(0.975, 2) * math.sqrt(found.variance)
    assert found.interval(0.95) == pytest.approx((found.mean - half, found.mean + half))
    assert found.components.rest == pytest.approx(math.sqrt((0.0002 + 0.0008 + 0.0002) / 4))
    assert OuterFolds.of_rows(rows[:1]) is None


def test_pseudo_values_mean_the_metric_of_all_images_and_follow_a_linear_one_exactly() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 60)
    labels = np.eye(3, dtype=np.int8)[truth]
    decided = np.eye(3, dtype=bool)[np.where(random.random(60) < 0.7, truth, random.integers(0, 3, 60))]
    units, fold = np.arange(60), np.arange(60) % 5
    value = float(macro_f1(count(decided, labels)))
    rows = pseudo_rows(value, influences_on(macro_f1, decided, labels, units), fold)
    assert np.mean([row.mean() for row in rows]) == pytest.approx(value, abs=1e-12)

    def share_of_hits(counts: DecisionCounts) -> Floats:
        return ratio(counts.tp.sum(axis=-1), counts.support.sum(axis=-1))

    right = (decided & (labels == 1)).any(axis=1)
    rows = pseudo_rows(right.mean(), influences_on(share_of_hits, decided, labels, units), fold)
    assert [row.mean() for row in rows] == pytest.approx([right[fold == r].mean() for r in range(5)])


def test_folds_of_other_sizes_keep_the_mean() -> None:
    rows = pseudo_rows(0.5, np.array([1.0, -2.0, 3.0, -1.0, -1.0]), np.array([0, 0, 0, 1, 1]))
    assert [len(row) for row in rows] == [3, 2]
    assert np.mean([row.mean() for row in rows]) == pytest.approx(0.5)


@pytest.mark.parametrize("effect", [0.0, 0.12])
def test_f1_of_one_test_image_per_class_and_fold_makes_few_false_calls_and_finds_an_effect(effect: float) -> None:
    """Studies with 10 folds of one image of each class: two arms that tell a class rightly with .6, and one that does with more."""
    random, k, each = np.random.default_rng(1), 10, 3
    labels = np.tile(np.repeat(np.eye(3, dtype=np.int8), each // 3 or 1, axis=0), (k, 1))
    fold, truth = np.repeat(np.arange(k), 3), labels.argmax(axis=1)
    found = np.zeros(DRAWS)
    covered = 0
    for draw in range(DRAWS // 10):  # a tenth: what is drawn is judged one after the other
        values: dict[str, dict[int, float | None]] = {}
        influence = {}
        for arm, skill in (("real", 0.6), ("synthetic", 0.6 + 3 * effect)):
            told = np.where(random.random(len(truth)) < skill, truth, random.integers(0, 3, len(truth)))
            decided = np.eye(3, dtype=bool)[told]
            value = float(macro_f1(count(decided, labels)))
            rows = pseudo_rows(value, influences_on(macro_f1, decided, labels, np.arange(len(truth))), fold)
            for r, row in enumerate(rows):
                values.setdefault(arm, {})[r] = float(row.mean())
                influence[arm, r] = row - row.mean()
        comparison = compare(Measured("macro_f1", values, influence, OuterFolds), "synthetic", "real", BOTH_TESTS)
        assert comparison.interval is not None
        found[draw] = comparison.finding == "better" if effect else comparison.finding in ("better", "worse")
        covered += comparison.interval[0] <= 0 <= comparison.interval[1]
    judged = DRAWS // 10
    if effect:
        assert found.sum() / judged > 0.25
    else:
        assert found.sum() / judged <= BOTH_TESTS + 2 * math.sqrt(BOTH_TESTS * (1 - BOTH_TESTS) / judged)
        assert covered / judged >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / judged)


def test_the_forecast_knows_folds() -> None:
    of = assumed_components([110] * 3, 330)
    power = PowerForecast(of, 0.05, OuterFolds)
    assert power.smallest_effect(10, 330) < power.smallest_effect(6, 330)
    assert power.smallest_effect(10, 3300) < power.smallest_effect(10, 330)
    assert power.smallest_effect(5, 330) == math.inf
    expected = OuterFolds.expected(of, 10, 330)
    assert expected.components.rest == pytest.approx(math.hypot(of.unit, of.rest))
    assert expected.components.repetition == pytest.approx(of.repetition)
    design = power.needed(10, 330, 0.02)
    assert power.smallest_effect(design.repetitions, design.units) <= 0.0215
    assert (power.units_needed(10, 330, 0.02) or 0) > 330


def test_the_forecast_comes_true() -> None:
    """With the smallest effect four of five drawn studies find it, by the t test and the sign-flip test."""
    of, k, n = Components(0.012, 0.0, 0.33), 10, 330
    effect = PowerForecast(of, 0.05, OuterFolds).smallest_effect(k, n)
    random = np.random.default_rng(2)
    # the correlation of which the variance is an estimate: 1/k, as the folds' values would have by their common training images
    own, common = OuterFolds.expected(of, k, n).errors
    found = effect + random.normal(0, common, (4000, 1)) + random.normal(0, own, (4000, k))
    error = np.sqrt((1 / k + 1 / (k - 1)) * found.var(axis=1, ddof=1))
    power = (found.mean(axis=1) / error > student.ppf(0.975, k - 1)).mean()
    assert 0.73 <= power <= 0.88
