"""Tests how many measurements are made, and how they are summarized."""

from __future__ import annotations

from contextlib import suppress

import pytest

from shared.benchmark import LEAST, MOST, Enough, Repeats, exactly, repeated, spread


def taken(seconds: float) -> Repeats:
    clock = [0.0]
    found = Repeats(lambda: clock[0])
    with suppress(Enough):
        for _ in range(10 * MOST):
            clock[0] += seconds
            found.add(seconds)
    return found


@pytest.mark.parametrize(("seconds", "count"), [(10.0, LEAST), (0.15, 6), (1e-6, MOST)])
def test_enough_are_taken_in_little_time(seconds: float, count: int) -> None:
    assert taken(seconds).times == [seconds] * count


def test_the_first_counts_for_nothing_and_a_slow_moment_for_little() -> None:
    found = Repeats()
    for seconds in (50.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 9.0):
        found.add(seconds)
    assert found.first == 50.0
    low, middle, high = spread(found.times)
    assert (low, middle) == (1.0, 1.0)
    assert 2.0 <= high < 9.0
    assert exactly(3.0).tolist() == [3.0] * 3


def test_work_is_repeated_until_enough_and_its_first_time_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.benchmark.SECONDS", -1.0)  # it is late from the start
    times = iter((9.0, 1.0, 2.0, 3.0, 4.0))
    assert repeated(lambda: next(times)) == [1.0, 2.0, 3.0]
