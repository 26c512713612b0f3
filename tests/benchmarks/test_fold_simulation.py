"""The simulation of folds behind docs/statistics.md, in small: the same figures as the report's own functions, few false calls, and power."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.fold_simulation import ALPHA, World, fold_differences, judge_folds, judge_single
from shared.metrics.outer_folds import OuterFolds
from shared.metrics.statistics import sign_flip_p

STUDIES = 4000
TWO_ERRORS = 2 * math.sqrt(ALPHA * (1 - ALPHA) / STUDIES)


@pytest.mark.parametrize("training", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("repetitions", [6, 10])
def test_false_calls_are_rare_and_intervals_hold_the_truth_with_few_images(training: float, repetitions: int) -> None:
    found = judge_folds(np.random.default_rng(0), World(0.0, 110, repetitions, training), STUDIES)
    assert found.false <= ALPHA + TWO_ERRORS
    assert found.covered >= 1 - ALPHA - TWO_ERRORS


def test_folds_with_common_training_images_are_correlated() -> None:
    found = fold_differences(np.random.default_rng(0), World(0.0, 100_000, 10, 20.0), 2000)
    assert np.corrcoef(found[:, 0], found[:, 1])[0, 1] == pytest.approx(8 / 9, abs=0.03)


def test_the_mean_errs_less_than_on_a_single_split_and_a_large_effect_is_found() -> None:
    world = World(12.0, 110, 10, 0.0)
    folds, single = (judge(np.random.default_rng(0), world, STUDIES) for judge in (judge_folds, judge_single))
    assert folds.error < 0.8 * single.error
    assert folds.better > 0.9


def test_it_judges_as_the_report_does() -> None:
    world, random = World(6.0, 110, 6, 1.0), np.random.default_rng(3)
    found = fold_differences(np.random.default_rng(3), world, 200)
    judged = judge_folds(random, world, 200)
    verdicts = [OuterFolds(float(row.mean()), 6, 330, float(row.var(ddof=1)), 0.0) for row in found]
    better = [
        v.p <= ALPHA and sign_flip_p(row.tolist()) <= ALPHA and v.mean > 0
        for v, row in zip(verdicts, found, strict=True)
    ]
    covered = [v.interval(1 - ALPHA)[0] <= 6 <= v.interval(1 - ALPHA)[1] for v in verdicts]
    assert (np.mean(better), np.mean(covered)) == (judged.better, judged.covered)
