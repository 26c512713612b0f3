"""Hands events to a receiver that may be slow or unavailable, in a thread of its own, so that no study waits for it."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from shared.errors import TailfillError, UnavailableError
from shared.log import Log
from shared.stop import StopSignal

T = TypeVar("T")
log = Log("tracking")

MOST_WAITING = 10_000
"""Counts the events that may wait; further ones are dropped, and the next run logs them."""
WAITS = (2.0, 5.0, 15.0, 30.0, 60.0)  # seconds between attempts while a receiver is unavailable; the last one repeats
LAST_ATTEMPTS = 2  # once the study is over
JOIN_SECONDS = 0.2  # between two looks for a signal while the end of a study waits
MOST_WARNINGS = 3  # about events that are refused, since a server that refuses one may refuse thousands


class Delivery(Generic[T]):
    """Delivers events in their order. `receive` raises UnavailableError if a later attempt may succeed, and anything else if none can."""

    def __init__(self, name: str, receive: Callable[[T], None], remedy: str) -> None:
        """Starts the thread; `name` and `remedy` are for the warning that says that events cannot be delivered."""
        self.name = name
        self._receive, self._remedy = receive, remedy
        self._waiting = queue.Queue[T](MOST_WAITING)
        self._closing, self._abandoned = threading.Event(), threading.Event()
        self._warned, self._refused = False, 0
        self._left = 0
        self._thread = threading.Thread(target=self._run, name=f"tracking {name}", daemon=True)
        self._thread.start()

    def put(self, event: T) -> None:
        """Accepts an event, and returns at once."""
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self._left += 1

    def begin_close(self) -> None:
        """Lets the thread end once it has delivered what waits."""
        self._closing.set()

    def end_close(self, deadline: float, stop: StopSignal) -> None:
        """Waits for the thread until the `deadline`, by the monotonic clock, or a signal, and says what is left then."""
        self._closing.set()
        while self._thread.is_alive() and time.monotonic() < deadline and not stop:
            self._thread.join(JOIN_SECONDS)
        left = self._left + self._waiting.qsize() + self._thread.is_alive()
        self._abandoned.set()
        if left:
            log.warning(f"{self.name}: {left} events of the study are not delivered; {self._remedy}")

    def abandon(self) -> None:
        """Drops what waits, without waiting for anything."""
        self._abandoned.set()

    def _run(self) -> None:
        while not self._abandoned.is_set():
            try:
                event = self._waiting.get(timeout=0.2)
            except queue.Empty:
                if self._closing.is_set():
                    return
                continue
            if not self._deliver(event):
                self._left += 1

    def _deliver(self, event: T) -> bool:
        """Returns whether the event was delivered, after as many attempts as it takes while the study runs."""
        attempt, last_attempts = 0, 0
        while not self._abandoned.is_set():
            if self._closing.is_set():
                last_attempts += 1
            try:
                self._receive(event)
                return True
            except UnavailableError as error:
                if not self._warned:
                    log.warning(f"{self.name}: {error}; the study goes on, {self._remedy}")
                    self._warned = True
            except Exception as error:  # noqa: BLE001 - a tracker never stops a study, whatever its library raises
                reason = (
                    str(error) if isinstance(error, TailfillError) else type(error).__name__
                )  # may contain a secret
                if self._refused < MOST_WARNINGS:
                    log.warning(f"{self.name}: an event of the study cannot be delivered: {reason}; the study goes on")
                self._refused += 1
                return False
            if last_attempts >= LAST_ATTEMPTS:
                self._abandoned.set()
                return False
            wait = WAITS[min(attempt, len(WAITS) - 1)] * random.uniform(0.5, 1.0)
            (self._abandoned if last_attempts else self._closing).wait(min(wait, 2.0) if last_attempts else wait)
            attempt += 1
        return False
