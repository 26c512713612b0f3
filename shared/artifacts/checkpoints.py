"""Saves the checkpoints of resumable training: where the last one is kept, and a thread that saves it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

from shared.log import Log

log = Log("checkpoint")

Values = Mapping[str, int | float | str]


class Checkpoints(Protocol):
    """Holds the latest checkpoint of some work: files by name (safetensors, JSON; never pickles) and a few values."""

    def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
        """Replaces the checkpoint; a process that is killed meanwhile leaves the old one whole."""

    def load(self) -> tuple[dict[str, Path], Values] | None:
        """Returns the files and values saved last, or None."""


class NoCheckpoints:
    """Keeps no checkpoint, for work too short to be resumed."""

    def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
        """Does nothing."""

    def load(self) -> tuple[dict[str, Path], Values] | None:
        """Returns None."""
        return None


class AsyncCheckpointer:
    """Saves checkpoints, or finished parts, in a thread beside the work, one at a time, so that a GPU does not wait for a store.

    Used as a context manager, it waits for the last one at the end. An error of a save is raised by the next call or at the end. The thread
    does not keep the process alive when a second signal ends it.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.seconds = 0.0
        """Counts the seconds that the last save took."""

    def begin(self, keep: Callable[[], None]) -> None:
        """Calls `keep` in a thread, after the previous save has ended."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(keep,), name="checkpoint", daemon=True)
        self._thread.start()

    def busy(self) -> bool:
        """Returns whether a save is running."""
        if self._thread is not None and self._thread.is_alive():
            return True
        self.wait()
        return False

    def wait(self) -> None:
        """Waits until no save is running; raises the error of the last one."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self, keep: Callable[[], None]) -> None:
        begun = time.monotonic()
        try:
            keep()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            self._error = error
        self.seconds = time.monotonic() - begun

    def __enter__(self) -> AsyncCheckpointer:
        return self

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, _: TracebackType | None) -> None:
        if kind is KeyboardInterrupt:
            return
        try:
            self.wait()
        except Exception as error:
            if kind is None:
                raise
            log.warning("a checkpoint was not kept", reason=str(error), beside=str(raised))
