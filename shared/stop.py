"""Tells a process that it must end, and how long it has for a last checkpoint."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shared.errors import Stopped

STOP_MARGIN_SECONDS = 5.0  # of the grace period, reserved for the rest of the shutdown


class StopSignal:
    """Tells long work that SIGTERM or SIGINT came. The work reads it between steps, writes a checkpoint if time allows, and calls `raise_if_set`."""

    def __init__(self, grace_seconds: float = 30.0) -> None:
        """Takes the number of seconds between the signal and SIGKILL."""
        self.grace_seconds = grace_seconds
        self._event = threading.Event()
        self._set_at = math.inf  # by time.monotonic()
        self._interrupts = False
        self._before = dict[signal.Signals, Any]()

    def install(self) -> None:
        """Installs the signal handlers; call it in the main thread. A second signal raises KeyboardInterrupt."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._received)

    def uninstall(self) -> None:
        """Installs the handlers of before again, for a caller that goes on, such as a notebook."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _received(self, *_: object) -> None:
        if self._event.is_set():
            raise KeyboardInterrupt  # a second signal ends whatever is running
        self.set()
        if self._interrupts:
            raise KeyboardInterrupt  # no Exception, which the library that waits might take for one of its own and try again

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Lets a signal end whatever the `with` block waits for, in the main thread, and then raises Stopped.

        It is for work that may be cut off anywhere, as it leaves nothing half done: waiting for a server, reading, computing a digest.
        """
        self.raise_if_set()
        if threading.current_thread() is not threading.main_thread():  # handlers run in the main thread alone
            yield
            return
        self._interrupts = True
        try:
            yield
        except BaseException:
            self.raise_if_set()  # a library may have made an error of its own of what the signal cut off
            raise
        else:
            self.raise_if_set()  # Python drops what a handler raises in a finalizer or around a fork
        finally:
            self._interrupts = False

    def set(self) -> None:
        """Sets the signal, as SIGTERM does."""
        self._set_at = min(self._set_at, time.monotonic())
        self._event.set()

    def seconds_left(self) -> float:
        """Returns the seconds left for a last checkpoint: the rest of the grace period less a margin for the shutdown."""
        return self._set_at + max(self.grace_seconds - STOP_MARGIN_SECONDS, self.grace_seconds / 2) - time.monotonic()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleeps, at most until the signal; returns whether it was set."""
        return self._event.wait(seconds)

    def raise_if_set(self) -> None:
        """Raises Stopped (exit 143) if the signal was set."""
        if self:
            raise Stopped("stopped by a signal; what was checkpointed stays, and the same command continues from there")
