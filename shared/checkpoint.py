"""What resumable training is given: a place for its last checkpoint, and a thread that brings checkpoints there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol

Values = Mapping[str, int | float | str]


class Checkpoints(Protocol):
    """Holds the one latest checkpoint of some work: files by name (safetensors, JSON; never pickles) and a few values."""

    def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
        """Replaces the checkpoint; whoever is killed in between leaves the old one whole."""

    def load(self) -> tuple[dict[str, Path], Values] | None:
        """The files and values saved last, or None."""


class NoCheckpoints:
    """For work too short to be resumed."""

    def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
        """Keeps nothing."""

    def load(self) -> tuple[dict[str, Path], Values] | None:
        """There is none."""
        return None


class FolderCheckpoints:
    """In a local folder: for tests and for work inside one process."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._saves = folder, 0
        self._latest: tuple[dict[str, Path], Values] | None = None

    def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
        """Copies the files, so that the caller may go on writing to its own; those of the one before stay whole for whoever has them mapped."""
        self._saves += 1
        folder = self._folder / str(self._saves)
        folder.mkdir(parents=True)
        self._latest = ({name: Path(shutil.copy(path, folder / name)) for name, path in files.items()}, values)

    def load(self) -> tuple[dict[str, Path], Values] | None:
        """What this object saved last."""
        return self._latest


class Keeper:
    """Keeps checkpoints beside the training, one at a time: a GPU does not wait for a store.

    A context manager, which waits for the last one. What ended one is raised by the next call, or there.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._running: Future[float] | None = None
        self.seconds = 0.0
        """What the last one took."""

    def begin(self, keep: Callable[[], None]) -> None:
        """Has `keep` called in the thread, after the one before has ended."""
        self.wait()

        def timed() -> float:
            begun = time.monotonic()
            keep()
            return time.monotonic() - begun

        self._running = self._pool.submit(timed)

    @property
    def busy(self) -> bool:
        """Whether one is on its way."""
        if self._running is not None and not self._running.done():
            return True
        self.wait()
        return False

    def wait(self) -> None:
        """Until none is on its way."""
        if self._running is not None:
            running, self._running = self._running, None
            self.seconds = running.result()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
        if kind is None:
            self.wait()
