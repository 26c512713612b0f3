"""The smallest effect against simulated studies that are judged by the rule, and what it takes to settle a point."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import stdtr

from shared.metrics.analysis import Components
from shared.metrics.forecast import (
    ASSUMED_REPETITION,
    TO_SETTLE,
    Needed,
    PowerForecast,
    assumed_components,
    design_text,
    times_as_many,
)
from shared.metrics.two_way import TwoWay

SETTINGS = [Components(0.011, 0.0, 0.3), Components(0.011, 0.2, 0.3), Components(0.003, 0.15, 0.3)]


def power(effect: float, of: Components, k: int, n: int, alpha: float, draws: int = 4000) -> float:
    """The share of studies with this effect in which the sign-flip test and the t test both find it, drawn from the model's mean squares."""
    random = np.random.default_rng(k)
    shared = random.normal(0, of.unit / math.sqrt(n), (draws, 1))
    found = effect + shared + random.normal(0, math.hypot(of.repetition, of.rest / math.sqrt(n)), (draws, k))
    of_units = (of.rest**2 + k * of.unit**2) * random.chisquare(n - 1, draws) / (n - 1)
    of_rest = of.rest**2 * random.chisquare((k - 1) * (n - 1), draws) / ((k - 1) * (n - 1))
    of_repetitions = n * found.var(axis=1, ddof=1)
    both = of_repetitions + of_units - of_rest
    largest = np.maximum(both, np.maximum(of_repetitions, of_units))
    spread = of_repetitions**2 / (k - 1) + of_units**2 / (n - 1) + of_rest**2 / ((k - 1) * (n - 1))
    freedom = np.maximum(
        np.where(both < largest, np.where(of_repetitions >= of_units, k - 1, n - 1), largest**2 / spread), k - 1
    )
    t = 2 * stdtr(freedom, -np.abs(found.mean(axis=1)) / np.sqrt(largest / (k * n)))
    signs = np.array([(1, *rest) for rest in product((1, -1), repeat=k - 1)])
    flip = (np.abs(found @ signs.T) >= np.abs(found.sum(axis=1))[:, None] - 1e-12).mean(axis=1)
    return float(((t <= alpha) & (flip <= alpha)).mean())


@pytest.mark.parametrize("of", SETTINGS, ids=("repetitions", "both", "images"))
@pytest.mark.parametrize(("k", "n", "alpha"), [(6, 300, 0.05), (8, 60, 0.05), (10, 3000, 0.05), (7, 300, 0.025)])
def test_four_of_five_studies_find_it(of: Components, k: int, n: int, alpha: float) -> None:
    effect = PowerForecast(of, alpha).smallest_effect(k, n)
    assert 0.73 <= power(effect, of, k, n, alpha) <= 0.88
    assert power(effect / 2, of, k, n, alpha) < 0.5


@settings(max_examples=50, deadline=None)
@given(
    repetition=st.floats(0.001, 0.03), unit=st.floats(0, 0.4), rest=st.floats(0.05, 0.6), k=st.integers(6, 20), n=st.integers(40, 4000)
)  # fmt: skip
def test_what_is_needed_settles_a_point_and_a_tenth_less_does_not(
    repetition: float, unit: float, rest: float, k: int, n: int
) -> None:
    forecast = PowerForecast(Components(repetition, unit, rest), 0.05)
    design = forecast.needed(k, n)
    assert design.repetitions >= k
    assert design.units >= n
    assert forecast.smallest_effect(design.repetitions, design.units) <= TO_SETTLE
    if design.units > n:
        assert forecast.smallest_effect(1000, n) > TO_SETTLE
        assert forecast.smallest_effect(design.repetitions, max(n, int(0.9 * design.units))) > TO_SETTLE
    elif design.repetitions > k:
        assert forecast.smallest_effect(max(k, int(0.9 * design.repetitions)), n) > TO_SETTLE


def test_test_units_alone_settle_a_point_or_cannot() -> None:
    quiet = Components(0.003, 0.2, 0.3)
    forecast = PowerForecast(quiet, 0.05)
    units = forecast.units_needed(10, 200)
    assert units is not None
    assert forecast.smallest_effect(10, units) <= TO_SETTLE < forecast.smallest_effect(10, int(0.95 * units))
    assert forecast.units_needed(10, 10**6) == 10**6  # there are enough
    assert (
        PowerForecast(Components(0.03, 0.2, 0.3), 0.05).units_needed(10, 200) is None
    )  # the repetitions alone differ too much


def test_too_few_repetitions_find_nothing() -> None:
    assert PowerForecast(SETTINGS[0], 0.05).smallest_effect(5, 1000) == math.inf
    assert PowerForecast(SETTINGS[0], 0.025).smallest_effect(6, 1000) == math.inf
    assert PowerForecast(SETTINGS[0], 0.05).smallest_effect(6, 1) == math.inf


def test_a_mean_over_classes_has_the_error_of_its_rarest() -> None:
    alike, uneven = assumed_components([100, 100], 200), assumed_components([10, 190], 200)
    assert alike.unit == pytest.approx(assumed_components([], 200).unit)
    assert uneven.unit > 2 * alike.unit
    assert uneven == assumed_components([10, 190, 0], 200)
    assert {alike.repetition, uneven.repetition} == {ASSUMED_REPETITION}
    (of_one,) = {assumed_components([10], total).unit / math.sqrt(total) for total in (1000,)}
    assert of_one == pytest.approx(
        assumed_components([10], 10).unit / math.sqrt(10)
    )  # other classes' images change nothing


def test_expected_mean_squares_give_the_components_back() -> None:
    for of in SETTINGS:
        table = TwoWay.expected(of, 8, 300)
        assert vars(table.components) == pytest.approx(vars(of))
        assert math.sqrt(table.variance) == pytest.approx(of.standard_error(8, 300))


def test_words() -> None:
    assert design_text(Needed(24, 300), 300) == "24 repetitions"
    assert design_text(Needed(12, 900), 300).startswith(
        "3 times as many test images of every class, and 12 repetitions"
    )


@pytest.mark.parametrize(("factor", "words"), [(2.34, "2.3"), (9.96, "10"), (331.4, "330"), (1234.5, "1,200")])
def test_factors_are_plain_numbers(factor: float, words: str) -> None:
    assert times_as_many(factor) == f"{words} times as many"
