"""The stop signal: how a process learns that it must end, and how long it has for a last checkpoint."""

from __future__ import annotations

import math
import signal
import threading
import time

from shared.errors import Stopped

STOP_MARGIN_SECONDS = 5.0  # of the grace period, left to the rest of the shutdown


class StopSignal:
    """Set by SIGTERM or SIGINT. Long work asks it between steps, writes a checkpoint if one fits, and calls `raise_if_set`."""

    def __init__(self, grace_seconds: float = 30.0) -> None:
        """`grace_seconds` lie between the signal and the kill."""
        self.grace_seconds = grace_seconds
        self._event = threading.Event()
        self._came = math.inf

    def install(self) -> None:
        """Takes the signals, in the main thread only; a second one raises KeyboardInterrupt."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._received)

    def _received(self, *_: object) -> None:
        if self._event.is_set():
            raise KeyboardInterrupt  # a second signal: whatever is under way ends here
        self.set()

    def set(self) -> None:
        """As if a signal had come."""
        self._came = min(self._came, time.monotonic())
        self._event.set()

    def seconds_left(self) -> float:
        """For a last checkpoint: what is left of the grace period, less a margin for the rest of the shutdown."""
        return self._came + max(self.grace_seconds - STOP_MARGIN_SECONDS, self.grace_seconds / 2) - time.monotonic()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleeps, at most until the signal; True where it came."""
        return self._event.wait(seconds)

    def raise_if_set(self) -> None:
        """Raises Stopped (exit 143) where the signal has come."""
        if self:
            raise Stopped("stopped by a signal; what was checkpointed stays, and the same command goes on from there")
