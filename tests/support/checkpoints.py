"""Keeps checkpoints without a store, for tests of what resumes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from shared.artifacts.checkpoints import Values


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
