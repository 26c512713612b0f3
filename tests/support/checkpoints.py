"""Keeps checkpoints without a store, for tests of what resumes."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from shared.artifacts.checkpoints import Values
from shared.stop import StopSignal


class FolderCheckpoints:
    """Keeps the checkpoints of a test in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._latest: tuple[dict[str, Path], Values] | None = None

    def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
        """Copies the files, so that the caller may change its own; earlier copies stay whole for readers that have them mapped."""
        self._folder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        copies = {name: Path(shutil.copy(path, folder / name)) for name, path in files.items()}
        self._latest = (copies, values)

    def load(self) -> tuple[dict[str, Path], Values] | None:
        """Returns what this object saved last, or None."""
        return self._latest


class StoppingCheckpoints(FolderCheckpoints):
    """Sends the stop signal when a checkpoint is saved: the first one, or that of a step. The training then makes one more step at most."""

    def __init__(self, folder: Path, stop: StopSignal, step: int | None = None, takes: float = 0.0) -> None:
        """Takes `takes` seconds longer to save the checkpoint with which it sends the signal."""
        super().__init__(folder)
        self._stop, self._step, self._takes = stop, step, takes
        self.steps: list[int] = []
        """Lists the steps of the checkpoints."""

    def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
        """Saves, and sends the signal if it is time."""
        super().save(files, **values)
        self.steps.append(int(values["step"]))
        if self._step in (None, values["step"]):
            self._stop.set()
            time.sleep(self._takes)
