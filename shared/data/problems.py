"""Collects everything that is wrong with the input, each with file and line, so that a person sees it all at once."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from shared.errors import DataError
from shared.log import Log
from shared.terminal import escaped

SHOWN = 20  # lines logged at most; the counts by reason cover the others


class BadImage(Exception):
    """Says that one image cannot be used: `reason` is two or three words, the message has the value.

    Who lists or decodes images catches it and reports it to `Problems`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Problems:
    """Collects the bad images and labels of one source.

    They are logged and counted; under `on_bad: fail`, `raise_if_failing` then ends the stage.
    """

    def __init__(self, on_bad: Literal["fail", "skip"]) -> None:
        self.on_bad = on_bad
        self.lines: list[str] = []
        """Holds the first SHOWN problems as `where: message`."""
        self._counts: Counter[str] = Counter()
        self._log = Log("prepare")

    @property
    def counts(self) -> dict[str, int]:
        """Maps each reason to its number of problems, sorted by reason."""
        return dict(sorted(self._counts.items()))

    def add(self, reason: str, where: str, message: str) -> None:
        """Records a problem.

        `reason` is two or three words, by which problems are counted; `where` is file and line; `message` has the value.
        """
        self._counts[reason] += 1
        # an image that is a file is named by both
        named = message if message.startswith(f"{where}: ") else f"{where}: {message}"
        line = escaped(named)  # a name on disk may have a line break, which would make two errors of one
        if len(self.lines) < SHOWN:
            self.lines.append(line)
            self._log.warning(line, on_bad=self.on_bad)

    def raise_if_failing(self) -> None:
        """Raises DataError (one line: the first problem and the counts) if there are problems and they are not to be skipped."""
        total = self._counts.total()
        if total > len(self.lines):
            self._log.warning(f"{total - len(self.lines)} more, not shown", **self.counts)
        if not total or self.on_bad == "skip":
            return
        counts = ", ".join(f"{reason} {number}" for reason, number in self.counts.items())
        raise DataError(
            f"{self.lines[0]} ({total} bad in all: {counts}); fix them, or set dataset.on_bad: skip to leave them out"
        )
