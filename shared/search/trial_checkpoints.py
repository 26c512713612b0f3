"""Saves checkpoints of trials, which several workers may hold one after the other: only the checkpoint that the lease names counts.

Each has a name of its own, made of the number of its claim and its number within the claim. So a worker that has lost the trial
without knowing it changes nothing that the next one reads or writes. No lease names what it still writes, which is removed with
all others when the search is committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from shared.artifacts.checkpoints import Values
from shared.search.leases import Claim


class TrialCheckpoints(Protocol):
    """Stores checkpoints of trials, by task key and name."""

    key: str
    """Gives the task key under which this worker saves."""

    def save(self, name: str, files: Mapping[str, Path], values: Values) -> None:
        """Writes the checkpoint of that name."""

    def load(self, key: str, name: str) -> tuple[dict[str, Path], Values] | None:
        """Returns a checkpoint, None if there is none; the key may be that of the same search with another budget."""

    def discard(self, key: str, name: str) -> None:
        """Removes a checkpoint that is no longer needed."""


class FencedCheckpoints:
    """Gives a claim access to the checkpoints of its trial."""

    def __init__(
        self, checkpoints: TrialCheckpoints, claim: Claim, name: str, note: Callable[[int, str, float], None]
    ) -> None:
        """Takes `note`, which records in the lease a checkpoint's epochs, its place and the seconds since its state, or raises LeaseLost."""
        self._checkpoints, self._claim, self._name, self._note = checkpoints, claim, name, note
        self._saves = 0

    def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
        """Writes a checkpoint beside the one that counts, and then makes the new one count. Raises LeaseLost."""
        self._claim.check()
        begun = time.monotonic()
        self._saves += 1
        name, earlier = f"{self._name}-{self._claim.number}-{self._saves}", self._claim.checkpoint
        self._checkpoints.save(name, files, values)
        self._note(int(values["epoch"]), f"{self._checkpoints.key}/{name}", time.monotonic() - begun)
        discard(self._checkpoints, earlier)

    def load(self) -> tuple[dict[str, Path], Values] | None:
        """Returns the checkpoint that counts, or None."""
        if self._claim.checkpoint is None:
            return None
        key, _, name = self._claim.checkpoint.partition("/")
        return self._checkpoints.load(key, name)


def discard(checkpoints: TrialCheckpoints, place: str | None) -> None:
    """Removes the checkpoint that a lease named, if it named any."""
    if place is not None:
        key, _, name = place.partition("/")
        checkpoints.discard(key, name)
