"""Measures repeated runs of the same work, from which a forecast is made, on a machine that may do other work too."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

LEAST = 3  # measurements that a spread needs
SECONDS = 1.0  # after which LEAST measurements are enough
MOST = 200
QUANTILES = (0.1, 0.5, 0.9)

Range = NDArray[np.float64]
"""Holds the low, middle and high value `[3]`, at QUANTILES."""


def spread(times: Sequence[float]) -> Range:
    """Returns the range `[3]` of measured times."""
    return np.quantile(np.asarray(times, np.float64), QUANTILES)


def exactly(value: float) -> Range:
    """Returns the range `[3]` of a number that was not measured repeatedly: three times the number."""
    return np.full(len(QUANTILES), value, np.float64)


Clock = Callable[[], float]
"""Returns the seconds since any fixed moment."""


def work_clock(on_gpu: bool, threads: int) -> Clock:
    """Returns the clock by which work is timed: on a CPU it counts the time in which the process computes, with so many threads, and not the time in
    which it waits for other processes. Timings of a busy machine are then about those of an idle one."""
    return time.monotonic if on_gpu else lambda: time.process_time() / threads


class NotTimed(Exception):
    """Says why a kind of work cannot be timed here; a forecast is then made without it."""


class Enough(Exception):
    """Says that no more measurements are needed."""


class Repeats:
    """Collects measured times; leaves out the first, which includes what is set up once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._all: list[float] = []

    @property
    def first(self) -> float:
        """Counts the seconds of the first run, which is left out of `times`."""
        return self._all[0]

    @property
    def times(self) -> list[float]:
        """Lists the seconds of each later run."""
        return self._all[1:]

    def add(self, seconds: float) -> None:
        """Records one measurement; raises Enough if no more are needed."""
        self._all.append(seconds)
        late = self._clock() - self._began > SECONDS
        if len(self.times) >= (LEAST if late else MOST):
            raise Enough


def repeated(seconds: Callable[[], float]) -> list[float]:
    """Calls `seconds`, which does the work and returns how long it took, as often as `Repeats` asks, and returns all times but the first."""
    repeats = Repeats()
    with suppress(Enough):
        while True:
            repeats.add(seconds())
    return repeats.times
