"""Retries calls to services that may be unavailable for a moment, for a limited number of times or seconds.

retrying(UnavailableError, attempts=4, backoff=Backoff(1.0), warn=partial(log.warning, "retry"), check=stop.raise_if_set)(call)
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
)
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
    errors: type[Exception] | tuple[type[Exception], ...] | Callable[[BaseException], bool],
    backoff: Backoff,
    warn: Callable[..., None],
    attempts: int | None = None,
    patience: float | None = None,
    check: Callable[[], None] | None = None,
    asked: Callable[[BaseException], float] | None = None,
) -> Retrying:
    """Returns a function that calls another one again while that raises one of `errors`; the last attempt's error is raised unchanged.

    `errors` are classes, or a function that tells them. It ends after this many `attempts`, or after `patience` seconds, with a last attempt
    then. Before each wait it calls `warn` with the keywords `attempt` (which one failed, from 1), `seconds` (of the wait), `error`, and, if it
    goes by `patience`, `waited` (the seconds since the first attempt began). `check` is called five times per second during a wait, and
    may raise to end the retries, as `StopSignal.raise_if_set` does. `asked` returns how many seconds the server that raised an error asked to
    wait, which is then the shortest wait.
    """

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        waited = {} if patience is None else {"waited": state.seconds_since_start}
        warn(attempt=state.attempt_number, seconds=round(state.upcoming_sleep, 1), error=error, **waited)

    def wait(state: RetryCallState) -> float:
        left = math.inf if patience is None else patience - (state.seconds_since_start or 0.0)
        error = state.outcome.exception() if state.outcome else None
        least = 0.0 if asked is None or error is None else asked(error)
        return max(0.0, min(max(backoff.seconds(state), least), left))

    retry = retry_if_exception_type(errors) if isinstance(errors, type | tuple) else retry_if_exception(errors)
    return Retrying(
        retry=retry,
        stop=stop_after_attempt(attempts) if attempts is not None else stop_after_delay(patience or 0.0),
        wait=wait,
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
