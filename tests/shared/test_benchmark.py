"""How many times are taken, and what is told of them."""

from __future__ import annotations

from contextlib import suppress

import pytest

from shared import benchmark as repeats
from shared.benchmark import LEAST, MOST, Enough, Repeats, exactly, spread


def taken(seconds: float, monkeypatch: pytest.MonkeyPatch) -> Repeats:
    clock = [0.0]
    monkeypatch.setattr(repeats.time, "monotonic", lambda: clock[0])
    found = Repeats()
    with suppress(Enough):
        for _ in range(10 * MOST):
            clock[0] += seconds
            found.add(seconds)
    return found


@pytest.mark.parametrize(("seconds", "count"), [(10.0, LEAST), (0.3, 6), (1e-6, MOST)])
def test_enough_are_taken_in_little_time(seconds: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert taken(seconds, monkeypatch).times == [seconds] * count


def test_the_first_counts_for_nothing_and_a_slow_moment_for_little() -> None:
    found = Repeats()
    for seconds in (50.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 9.0):
        found.add(seconds)
    assert found.first == 50.0
    low, middle, high = spread(found.times)
    assert (low, middle) == (1.0, 1.0)
    assert 2.0 <= high < 9.0
    assert exactly(3.0).tolist() == [3.0] * 3
