"""Permutation test and Holm's correction against enumeration, scipy's promises and simulation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.metrics.statistics import holm, sign_flip_p

differences = st.lists(st.integers(-20, 20), min_size=1, max_size=9).map(lambda v: [x / 100 for x in v])


def enumerated(values: list[float]) -> float:
    """Returns the p value from all sign patterns, whose sums are compared in whole hundredths."""
    whole = [round(v * 100) for v in values]
    sums = [abs(sum(s * v for s, v in zip(signs, whole, strict=True))) for signs in product((1, -1), repeat=len(whole))]
    return float(np.mean([total >= abs(sum(whole)) for total in sums]))


@settings(max_examples=60, deadline=None)
@given(differences)
def test_sign_flip_counts_every_pattern(values: list[float]) -> None:
    p = sign_flip_p(values)
    assert p == pytest.approx(enumerated(values))
    assert 2 / 2 ** len(values) <= p <= 1 + 1e-12
    assert sign_flip_p([-v for v in values]) == pytest.approx(p)


@pytest.mark.parametrize(("n", "smallest"), [(3, 0.25), (6, 0.03125), (7, 0.015625), (10, 2 / 1024)])
def test_the_smallest_p(n: int, smallest: float) -> None:
    assert sign_flip_p([0.1 + i / 1000 for i in range(n)]) == pytest.approx(smallest)


def test_no_difference_is_no_evidence() -> None:
    assert sign_flip_p([]) == sign_flip_p([0.0] * 8) == sign_flip_p([0.3]) == 1.0


def test_sums_that_differ_by_rounding_are_equal() -> None:
    assert sign_flip_p([-0.02, -0.03, 0.02, 0.03]) == 1.0


def test_many_pairs_are_sampled_and_repeat() -> None:
    values = np.random.default_rng(0).normal(0.4, 1, 25).tolist()
    p = sign_flip_p(values)
    assert p == sign_flip_p(values)
    assert 0.001 < p < 0.3


def test_false_alarms_stay_at_alpha() -> None:
    random = np.random.default_rng(1)
    alarms = [sign_flip_p(random.normal(0, 1, 7)) <= 0.05 for _ in range(600)]
    # 0.047 is what 7 pairs can reach below 0.05 (6/128); three standard errors of 600 trials are 0.026
    assert np.mean(alarms) == pytest.approx(6 / 128, abs=0.026)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_monotone_and_bounded(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= a <= 1 for p, a in zip(p_values, adjusted, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()
    assert adjusted[order[0]] == pytest.approx(min(1, p_values[order[0]] * len(p_values)))
