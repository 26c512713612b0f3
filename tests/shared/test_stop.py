"""Tests the stop signal and its grace period."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from shared.errors import InputError, Stopped
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


@pytest.mark.usefixtures("_signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_what_is_waited_for(number: signal.Signals) -> None:
    stop = StopSignal()
    stop.install()
    threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
    start = time.monotonic()
    with pytest.raises(Stopped), stop.interrupting():
        _wait_stubbornly()
    assert time.monotonic() - start < 5
    with pytest.raises(Stopped), stop.interrupting():
        raise AssertionError("nothing is begun after the signal")


@pytest.mark.usefixtures("_signals")
def test_an_error_that_a_library_makes_of_a_signal_is_the_stop() -> None:
    stop = StopSignal()
    stop.install()

    def wait() -> None:
        try:
            time.sleep(30)
        except BaseException as error:
            raise InputError("the file cannot be read") from error

    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(Stopped), stop.interrupting():
        wait()


def _wait_stubbornly() -> None:
    """Waits as a library does that takes any exception for one of its own, and tries again."""
    for _ in range(2):
        with contextlib.suppress(Exception):
            time.sleep(30)


@pytest.mark.usefixtures("_signals")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_is_not_lost_if_python_drops_what_its_handler_raises() -> None:
    stop = StopSignal()
    stop.install()

    class Dropped:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    with pytest.raises(Stopped), stop.interrupting():
        Dropped()


@pytest.mark.usefixtures("_signals")
def test_the_handlers_of_before_come_back() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stop = StopSignal()
    stop.install()
    assert signal.getsignal(signal.SIGINT) == stop._received
    stop.uninstall()
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.usefixtures("_signals")
def test_other_work_is_not_cut_off() -> None:
    stop = StopSignal()
    stop.install()
    with stop.interrupting():
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop
