"""What resumable training is given: a place for its last checkpoint, and the signal to stop."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
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
    """In a local folder, without atomicity: for tests and for work inside one process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._latest: tuple[dict[str, Path], Values] | None = None

    def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
        """Copies the files, so that the caller may go on writing to its own."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._latest = ({name: Path(shutil.copy(path, self._folder / name)) for name, path in files.items()}, values)

    def load(self) -> tuple[dict[str, Path], Values] | None:
        """What this object saved last."""
        return self._latest
