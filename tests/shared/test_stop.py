"""Tests the stop signal and its grace period."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator

import pytest

from shared.errors import Stopped
from shared.stop import StopSignal


@pytest.fixture
def _signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_between_steps(number: signal.Signals) -> None:
    stop = StopSignal()
    stop.install()
    stop.raise_if_set()
    assert not stop
    assert not stop.wait(0)
    os.kill(os.getpid(), number)
    assert stop
    assert stop.wait(0)
    with pytest.raises(Stopped, match="what was checkpointed stays"):
        stop.raise_if_set()


@pytest.mark.parametrize(("grace", "most"), [(30.0, 25.0), (3.0, 1.5)])
def test_the_grace_period_runs_out_from_the_first_signal_on(grace: float, most: float) -> None:
    stop = StopSignal(grace)
    assert stop.seconds_left() == math.inf
    stop.set()
    left = stop.seconds_left()
    assert most - 0.5 < left <= most
    stop.set()
    assert stop.seconds_left() <= left
