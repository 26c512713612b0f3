"""Verdicts of known differences."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.metrics.statistics import holm
from shared.metrics.table import metric_named
from shared.metrics.verdict import ArmVerdict, Comparison, Measured, compare, give_verdicts, paired

BASE = {repeat: 0.5 + repeat / 1000 for repeat in range(10)}
UNITS = 200


def shifted(by: float, noise: float = 0.0, n: int = 10, seed: int = 0) -> dict[int, float | None]:
    random = np.random.default_rng(seed)
    return {r: BASE[r] + by + noise * random.normal() for r in range(n)}


def measured(
    values: Mapping[str, Mapping[int, float | None]], of_unit: float = 0.0, metric: str = "macro_f1"
) -> Measured:
    """Arms with these values, in which an arm's own part of each test unit has the standard deviation `of_unit`."""
    every = {"real": dict(BASE), **values}
    influences = {}
    for arm, by_repeat in every.items():
        random = np.random.default_rng(sum(arm.encode()))
        own = random.normal(0, of_unit, UNITS) if of_unit else np.zeros(UNITS)
        influences |= {(arm, repeat): own - own.mean() for repeat in by_repeat}
    return Measured(metric, every, influences)


def verdicts(
    values: Mapping[str, Mapping[int, float | None]], placebos: tuple[str, ...] = (), of_unit: float = 0.0
) -> dict[str, ArmVerdict]:
    arms = [arm for arm in values if arm not in placebos]
    return {v.arm: v for v in give_verdicts(measured(values, of_unit), "real", arms, placebos, 0.05)}


def reading(values: dict[int, float | None], of_unit: float = 0.0, metric: str = "macro_f1") -> Comparison:
    return compare(measured({"arm": values}, of_unit, metric), "arm", "real", 0.05)


def test_clear_gains_and_losses() -> None:
    found = verdicts({"better": shifted(0.02, 0.002), "worse": shifted(-0.02, 0.002), "same": shifted(0.0, 0.01)})
    assert {arm: v.outcome for arm, v in found.items()} == {
        "better": "recipe helps",
        "worse": "hurts",
        "same": "no effect found",
    }
    against = found["better"].against_baseline
    assert against.difference == pytest.approx(0.02, abs=0.003)
    assert against.p_repetitions == against.p == pytest.approx(2 / 1024)
    assert against.p_adjusted == pytest.approx(6 / 1024)


def test_test_units_are_the_second_factor() -> None:
    """The same ten differences: clear on these test images, and not so on others if each image has much of its own to say."""
    values = shifted(0.01, 0.003)
    few, many = reading(values), reading(values, of_unit=0.2)
    assert few.p_repetitions == many.p_repetitions < 0.01
    assert (few.finding, many.finding) == ("better", "no difference found")
    assert many.p == many.p_units > 0.05
    low, high = many.interval or (1.0, 0.0)
    assert low < 0 < 0.01 < high
    assert few.interval is not None
    assert few.interval[0] > 0


def test_units_alone_do_not_suffice() -> None:
    """One repetition of five goes against the mean: the t test may find it, the sign-flip test cannot."""
    values = {r: BASE[r] + d for r, d in enumerate([0.02, 0.021, 0.02, 0.019, 0.02, -0.001])}
    found = reading(values)
    assert (found.p_units, found.p_repetitions) == (pytest.approx(0.006, abs=0.01), pytest.approx(4 / 64))
    assert found.finding == "no difference found"


def test_the_images_help_if_the_arm_beats_the_placebo_too() -> None:
    synthetic = shifted(0.02, 0.002)
    for placebo, outcome in ((0.0, "images help"), (0.0199, "recipe helps"), (0.04, "recipe helps")):
        found = verdicts({"synthetic": synthetic, "copies": shifted(placebo, 0.004, seed=1)}, ("copies",))["synthetic"]
        (against,) = found.against_placebos
        assert found.outcome == outcome
        assert found.p_images == max(found.against_baseline.p, against.p)
        assert found.p == (found.p_images if outcome == "images help" else found.against_baseline.p)
        assert found.against_baseline.comparisons == 1  # the placebo is no comparison of its own
    both = {"synthetic": synthetic, "copies": shifted(0.0, 0.004, seed=1), "more": shifted(0.0199, 0.004, seed=2)}
    assert verdicts(both, ("copies", "more"))["synthetic"].outcome == "recipe helps"
    loses = verdicts({"synthetic": shifted(-0.02, 0.002), "copies": shifted(-0.05, 0.002)}, ("copies",))["synthetic"]
    assert loses.outcome == "hurts"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-0.02, 0.02), st.floats(-0.02, 0.02)), min_size=1, max_size=4))
def test_holm_runs_over_the_arms_with_generated_images(shifts: list[tuple[float, float]]) -> None:
    values = {f"a{i}": shifted(by, 0.01, seed=i) for i, (by, _) in enumerate(shifts)}
    values["copies"] = shifted(shifts[0][1], 0.01, seed=99)
    found = list(verdicts(values, ("copies",)).values())
    assert [v.against_baseline.p_adjusted for v in found] == holm([v.against_baseline.p for v in found])
    largest = [max(v.against_baseline.p, v.against_placebos[0].p) for v in found]
    assert [v.p_images for v in found] == holm(largest)
    for verdict in found:
        if verdict.outcome == "images help":
            assert verdict.against_baseline.p_adjusted <= (verdict.p_images or 1.0) <= 0.05


def test_equal_differences_are_tested_too() -> None:
    found = verdicts({"better": shifted(0.01), "copy": shifted(0.0)})
    assert [v.outcome for v in found.values()] == ["recipe helps", "no effect found"]
    assert found["better"].against_baseline.interval == pytest.approx((0.01, 0.01))
    assert found["copy"].p == 1.0


def test_few_repetitions_are_no_verdict() -> None:
    found = verdicts({"better": shifted(0.2, n=6), "other": shifted(0.2, n=7)})
    against = found["better"].against_baseline
    assert (found["better"].outcome, against.n, against.least) == ("too few repetitions", 6, 7)
    assert against.smallest_effect is None
    assert found["other"].outcome == "recipe helps"
    assert verdicts({"alone": shifted(0.2, n=6)})["alone"].outcome == "recipe helps"  # one comparison needs six
    assert reading(shifted(0.2, n=1)).interval is None


def test_undefined_metrics_are_dropped_in_pairs() -> None:
    arm: dict[int, float | None] = {**shifted(0.1), 3: None, 4: math.nan}
    pairs = paired(arm, dict(BASE))
    assert (len(pairs.repeats), len(pairs.differences), pairs.dropped) == (8, 8, 2)
    nothing = reading({})
    assert (nothing.finding, nothing.difference, nothing.p) == ("too few repetitions", None, 1.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-0.1, 0.1), min_size=7, max_size=10))
def test_turning_the_signs_turns_the_finding(shifts: list[float]) -> None:
    up = reading({r: BASE[r] + s for r, s in enumerate(shifts)}, 0.05)
    down = reading({r: BASE[r] - s for r, s in enumerate(shifts)}, 0.05)
    turned = {"better": "worse", "worse": "better"}
    if abs(up.p - 0.05) > 1e-9:
        assert down.p == pytest.approx(up.p, abs=0.2)  # the units' own parts do not turn with the signs
    alone_up, alone_down = (reading({r: BASE[r] + sign * s for r, s in enumerate(shifts)}) for sign in (1, -1))
    assert alone_down.finding == turned.get(alone_up.finding, alone_up.finding)
    assert alone_down.p == pytest.approx(alone_up.p, abs=0.03)  # rounding may break or make a tie


def test_more_of_what_should_be_small_is_worse() -> None:
    assert not metric_named("ece").larger_is_better
    assert reading(shifted(0.02, 0.002), metric="ece").finding == "worse"
    assert reading(shifted(-0.02, 0.002), metric="ece").finding == "better"


def test_the_smallest_effect_follows_the_variances() -> None:
    quiet, loud = reading(shifted(0.0, 0.01)), reading(shifted(0.0, 0.01), of_unit=0.5)
    assert quiet.smallest_effect is not None
    assert loud.smallest_effect is not None
    assert quiet.smallest_effect == pytest.approx(0.011, rel=0.5)
    assert loud.smallest_effect > 2 * quiet.smallest_effect
