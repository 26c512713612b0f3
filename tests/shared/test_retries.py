from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from shared.errors import DataError, Stopped, UnavailableError
from shared.retries import FULL_JITTER, Backoff, retrying
from shared.stop import StopSignal

AT_ONCE = Backoff(0.0)


class Service:
    """Fails a number of times, then answers."""

    def __init__(self, failures: float, error: Callable[[str], Exception] = UnavailableError) -> None:
        self.failures, self.error, self.calls = failures, error, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error(f"failure {self.calls}")
        return "answer"


class Warnings(list[dict[str, Any]]):
    """Keeps what is logged of retries."""

    def __call__(self, **values: object) -> None:
        self.append(values)


def test_a_service_that_recovers_answers_and_each_retry_is_logged() -> None:
    service, warnings = Service(2), Warnings()
    assert retrying(UnavailableError, AT_ONCE, warnings, attempts=3)(service) == "answer"
    assert [(warning["attempt"], str(warning["error"])) for warning in warnings] == [(1, "failure 1"), (2, "failure 2")]


def test_attempts_are_bounded_and_the_last_error_is_raised() -> None:
    service, warnings = Service(math.inf), Warnings()
    with pytest.raises(UnavailableError, match="failure 4"):
        retrying(UnavailableError, AT_ONCE, warnings, attempts=4)(service)
    assert (service.calls, len(warnings)) == (4, 3)


def test_patience_bounds_the_seconds_and_the_last_attempt_is_at_its_end() -> None:
    service, warnings, began = Service(math.inf), Warnings(), time.monotonic()
    with pytest.raises(UnavailableError):
        retrying(UnavailableError, Backoff(0.05, 60.0), warnings, patience=0.5)(service)
    assert 0.5 <= time.monotonic() - began < 5
    assert service.calls == len(warnings) + 1
    assert sum(warning["seconds"] for warning in warnings) == pytest.approx(0.5, abs=0.2)
    assert warnings[-1]["waited"] < 0.5


def test_a_function_may_tell_the_errors() -> None:
    service = Service(5)
    early = retrying(lambda error: str(error) < "failure 3", AT_ONCE, Warnings(), attempts=9)
    with pytest.raises(UnavailableError, match="failure 3"):
        early(service)
    assert service.calls == 3


def test_other_errors_are_raised_at_once() -> None:
    service = Service(1, DataError)
    with pytest.raises(DataError):
        retrying(UnavailableError, AT_ONCE, Warnings(), attempts=3)(service)
    assert service.calls == 1


@pytest.mark.parametrize(("jitter", "low"), [((0.5, 1.5), 0.5), (FULL_JITTER, 0.0)])
def test_waits_double_up_to_the_longest(jitter: tuple[float, float], low: float) -> None:
    warnings, waits = Warnings(), [2.0, 4.0, 5.0, 5.0]
    again = retrying(UnavailableError, Backoff(2.0, 5.0, jitter), warnings, attempts=5)
    again.sleep = lambda _: None
    with pytest.raises(UnavailableError):
        again(Service(math.inf))
    for warning, wait in zip(warnings, waits, strict=True):
        assert low * wait - 0.05 <= warning["seconds"] <= jitter[1] * wait + 0.05


def test_a_signal_ends_a_wait() -> None:
    stop, service, began = StopSignal(), Service(math.inf), time.monotonic()

    def warn(**_: object) -> None:
        stop.set()

    with pytest.raises(Stopped):
        retrying(UnavailableError, Backoff(60.0), warn, attempts=3, check=stop.raise_if_set)(service)
    assert service.calls == 1
    assert time.monotonic() - began < 5
