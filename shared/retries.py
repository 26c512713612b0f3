"""Retries calls to services that may be unavailable for a moment, a limited number of times.

retrying(UnavailableError, attempts=4, backoff=Backoff(1.0), warn=partial(log.warning, "retry"), check=stop.raise_if_set)(call)
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential

CHECK_SECONDS = 0.2  # between two checks during a wait


@dataclass(frozen=True)
class Backoff:
    """Waits between attempts, which double and vary at random."""

    first: float
    """Sets the first wait in seconds, before it varies; 0 retries at once."""
    longest: float = math.inf
    """Sets the longest wait in seconds, from which waits no longer double."""
    jitter: tuple[float, float] = (0.5, 1.5)
    """Bounds the random factor of each wait."""

    def seconds(self, state: RetryCallState) -> float:
        """Returns how long to wait after an attempt that failed."""
        return wait_exponential(multiplier=self.first, max=self.longest)(state) * random.uniform(*self.jitter)


FULL_JITTER = (0.0, 1.0)
"""Spreads the clients that met at one object over the whole wait."""


def retrying(
    errors: type[Exception] | tuple[type[Exception], ...],
    backoff: Backoff,
    warn: Callable[..., None],
    attempts: int,
    check: Callable[[], None] | None = None,
) -> Retrying:
    """Returns a function that calls another one again while that raises one of `errors`; the last attempt's error is raised unchanged.

    It ends after so many `attempts`. Before each wait it calls `warn` with the keywords
    `attempt` (which one failed, from 1), `seconds` (of the wait) and `error`. `check` is called five times per second during a wait, and
    may raise to end the retries, as `StopSignal.raise_if_set` does.
    """

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        warn(attempt=state.attempt_number, seconds=round(state.upcoming_sleep, 1), error=error)

    return Retrying(
        retry=retry_if_exception_type(errors),
        stop=stop_after_attempt(attempts),
        wait=backoff.seconds,
        sleep=partial(_sleep, check=check),
        before_sleep=before_sleep,
        reraise=True,
    )


def _sleep(seconds: float, check: Callable[[], None] | None) -> None:
    if check is None:
        time.sleep(seconds)
        return
    end = time.monotonic() + seconds
    check()
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, CHECK_SECONDS))
        check()
