"""Numbers the attempts at the work of one key, so that a process that was replaced without knowing it cannot replace what the next one saves.

Kubernetes replaces a Pod whose node does not answer, and that Pod may work on. So each attempt saves its checkpoints under a name of its own, and the
one that counts is that of the newest attempt which saved any.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.checkpoints import Values
from shared.config.stages import Stage


class Attempt:
    """Gives one attempt at some work access to the checkpoints of one name."""

    def __init__(self, artifacts: Artifacts, stage: Stage, key: str, name: str) -> None:
        """Begins an attempt that is newer than all that have begun before."""
        self._artifacts, self._stage, self._key, self._name = artifacts, stage, key, name
        self._number = artifacts.begin_attempt(stage, key, name)
        self._saved = False

    def load(self) -> tuple[dict[str, Path], dict[str, int | float | str]] | None:
        """Returns the files and values of the checkpoint that counts, or None if no attempt has saved any."""
        numbers = self._artifacts.attempts(self._stage, self._key, self._name)
        for name in [*(f"{self._name}.{number}" for number in reversed(numbers)), self._name]:
            found = self._artifacts.load_checkpoint(self._stage, self._key, name)
            if found is not None and found[1]:  # an attempt that has saved nothing has no values
                return found
        return None

    def save(self, files: Mapping[str, Path], values: Values) -> None:
        """Replaces the checkpoint of this attempt; the first time, it then removes those of the attempts before it."""
        self._artifacts.save_checkpoint(self._stage, self._key, f"{self._name}.{self._number}", files, values)
        if self._saved:
            return
        self._saved = True
        numbers = self._artifacts.attempts(self._stage, self._key, self._name)
        # version 0.1.0 saved without a number
        for name in [*(f"{self._name}.{number}" for number in numbers if number < self._number), self._name]:
            self._artifacts.discard_checkpoint(self._stage, self._key, name)
