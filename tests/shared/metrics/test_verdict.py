"""Tests verdicts on known differences, and the interval over images and seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data.schema import LabelGroup, LabelSchema
from shared.metrics.classification import fast_scores
from shared.metrics.counts import count, decide
from shared.metrics.resample import Decisions, clustered_interval, resampled_scores
from shared.metrics.table import METRICS, metric_named
from shared.metrics.verdict import Comparison, compare, contrast, paired

BASE = {repeat: 0.5 + repeat / 1000 for repeat in range(10)}


def shifted(by: float, noise: float = 0.0, n: int = 10) -> dict[int, float | None]:
    random = np.random.default_rng(0)
    return {r: BASE[r] + by + noise * random.normal() for r in range(n)}


def judge(values: dict[str, dict[int, float | None]], alpha: float = 0.05) -> dict[str, Comparison]:
    found = compare({"real": dict(BASE), **values}, "real", "macro_f1", alpha, lambda *_: None)
    return {c.arm: c for c in found}


def test_clear_gains_and_losses() -> None:
    found = judge({"better": shifted(0.02, 0.002), "worse": shifted(-0.02, 0.002), "same": shifted(0.0, 0.01)})
    assert {arm: c.outcome for arm, c in found.items()} == {
        "better": "helps",
        "worse": "hurts",
        "same": "no effect found",
    }
    assert found["better"].difference == pytest.approx(0.02, abs=0.003)
    assert found["better"].p == pytest.approx(2 / 1024)
    assert found["better"].p_holm == pytest.approx(6 / 1024)


def test_equal_differences_are_tested_too() -> None:
    found = judge({"better": shifted(0.01), "copy": shifted(0.0)})
    assert (found["better"].outcome, found["copy"].outcome) == ("helps", "no effect found")
    assert found["better"].seed_interval == pytest.approx((0.01, 0.01))
    assert found["copy"].p == 1.0


def test_few_seeds_are_no_verdict() -> None:
    found = judge({"better": shifted(0.2, n=6), "other": shifted(0.2, n=7)})
    assert (found["better"].outcome, found["better"].n, found["better"].least) == ("too few seeds", 6, 7)
    assert found["other"].outcome == "helps"
    assert judge({"alone": shifted(0.2, n=6)})["alone"].outcome == "helps"  # one comparison needs six


def test_undefined_metrics_are_dropped_in_pairs() -> None:
    arm: dict[int, float | None] = {**shifted(0.1), 3: None, 4: math.nan}
    pairs = paired(arm, dict(BASE))
    assert (len(pairs.repeats), len(pairs.differences), pairs.dropped) == (8, 8, 2)
    nothing = judge({"empty": {}})["empty"]
    assert (nothing.outcome, nothing.difference, nothing.p) == ("too few seeds", None, 1.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-0.1, 0.1), min_size=7, max_size=10))
def test_turning_the_signs_turns_the_verdict(shifts: list[float]) -> None:
    up = judge({"arm": {r: BASE[r] + s for r, s in enumerate(shifts)}})["arm"]
    down = judge({"arm": {r: BASE[r] - s for r, s in enumerate(shifts)}})["arm"]
    turned = {"helps": "hurts", "hurts": "helps"}
    assert down.outcome == turned.get(up.outcome, up.outcome)
    assert down.p == pytest.approx(up.p, abs=0.03)  # rounding may break or make a tie


def test_a_contrast_is_not_corrected() -> None:
    values = {"real": dict(BASE), "synthetic": shifted(0.02, 0.002), "copies": shifted(0.019, 0.004)}
    found = contrast(values, "synthetic", "copies", "macro_f1", 0.05, lambda *_: (-0.1, 0.1))
    assert found.p == found.p_holm
    assert found.image_interval_has_zero


SCHEMA = LabelSchema(
    groups=(LabelGroup(name="g", classes=("a", "b", "c")), LabelGroup(name="t", kind="any", classes=("x",)))
)


def decisions(n: int = 200) -> Decisions:
    random = np.random.default_rng(3)
    labels = np.zeros((n, 4), np.int8)
    labels[np.arange(n), random.integers(0, 3, n)] = 1
    labels[:, 3] = random.choice([-1, 0, 1], n)
    decided = {}
    for name, skill in (("real", 0.5), ("better", 1.5)):
        for repeat in range(4):
            p = labels * skill + random.normal(0, 1, labels.shape)
            decided[name, repeat] = decide(SCHEMA, p)
    return Decisions(SCHEMA, labels, np.array([2]), decided)


def test_weighted_counts_are_those_of_the_resampled_images() -> None:
    made = decisions()
    rows = np.random.default_rng(0).integers(0, 200, 200)
    weights = np.bincount(rows, minlength=200).astype(np.float32)[None]
    decided = made.decided["real", 0]
    once, resampled = count(decided[rows], made.labels[rows]), count(decided, made.labels, weights)
    for score in (metric.from_counts for metric in METRICS):
        if score is not None:
            (value,) = score(SCHEMA, resampled, made.rare)
            assert value == pytest.approx(float(score(SCHEMA, once, made.rare)))


@pytest.mark.parametrize("metric", [metric.name for metric in METRICS if metric.verdict])
def test_a_verdict_can_rest_on_each_metric_that_says_so(metric: str) -> None:
    made = decisions()
    scores = resampled_scores(made, metric, 0, 600)
    assert {values.shape for values in scores.values()} == {(600,)}
    values: dict[str, dict[int, float | None]] = {"real": {}, "better": {}}
    for (arm, repeat), decided in made.decided.items():
        values[arm][repeat] = fast_scores(SCHEMA, decided.astype(np.float64), made.labels, made.rare)[metric]

    def interval(arm: str, baseline: str, repeats: list[int]) -> tuple[float, float] | None:
        return clustered_interval(scores, arm, baseline, repeats, 0.95, 0)

    (found,) = compare(values, "real", metric, 0.2, interval)
    assert (found.metric, found.n, found.outcome) == (metric, 4, "helps")
    low, high = found.image_interval or (1.0, 0.0)
    assert 0 < low < (found.difference or 0.0) < high
    assert interval("better", "real", []) is None


def test_more_of_what_should_be_small_hurts() -> None:
    assert not metric_named("ece").larger_is_better
    values = {"real": dict(BASE), "more": shifted(0.02, 0.002), "less": shifted(-0.02, 0.002)}
    found = compare(values, "real", "ece", 0.05, lambda *_: None)
    assert [c.outcome for c in found] == ["hurts", "helps"]


def test_the_interval_over_images_covers_what_other_test_sets_show() -> None:
    """Two fixed classifiers are right on 60 % and 66 % of images. The interval from 150 images covers the true difference as often as it claims."""
    schema = LabelSchema(groups=(LabelGroup(name="g", classes=("a", "b")),))
    random = np.random.default_rng(4)
    held = 0
    for draw in range(60):
        labels = np.zeros((150, 2), np.int8)
        labels[np.arange(150), random.integers(0, 2, 150)] = 1
        decided = {}
        for name, right in (("real", 0.60), ("arm", 0.66)):
            hit = random.random(150) < right
            decided[name, 0] = np.where(hit[:, None], labels == 1, labels == 0)
        scores = resampled_scores(Decisions(schema, labels, np.array([0]), decided), "accuracy", draw, 400)
        interval = clustered_interval(scores, "arm", "real", [0], 0.95, draw)
        assert interval is not None
        held += interval[0] <= 0.06 <= interval[1]
    assert held / 60 > 0.85
