"""What is wrong with the input, collected so that a person sees it all at once, each with file and line."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from shared.errors import DataError
from shared.log import Log

SHOWN = 20  # lines; more of them say nothing new, and the counts by reason follow


class BadImage(Exception):
    """One image that cannot be used: `reason` in two or three words, the message with the value. Ends in `Problems`, never at a person as it is."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Problems:
    """Bad images and labels of one source.

    Under `on_bad: skip` they are logged and counted; under `fail` they are collected, and `raise_if_failing` ends the stage.
    """

    def __init__(self, on_bad: Literal["fail", "skip"]) -> None:
        self.on_bad = on_bad
        self.lines: list[str] = []
        """The first SHOWN problems, `where: message`."""
        self._counts: Counter[str] = Counter()
        self._log = Log("prepare")

    @property
    def counts(self) -> dict[str, int]:
        """Reason → how many, sorted by reason."""
        return dict(sorted(self._counts.items()))

    def add(self, reason: str, where: str, message: str) -> None:
        """Takes down a problem: `reason` in two or three words (what is counted), `where` as file and line, `message` with the value."""
        self._counts[reason] += 1
        line = f"{where}: {message}"
        if len(self.lines) < SHOWN:
            self.lines.append(line)
            self._log.warning(line, on_bad=self.on_bad)

    def raise_if_failing(self) -> None:
        """Raises DataError (one line: the first problem and the counts) where there are problems and they are not to be skipped."""
        total = self._counts.total()
        if total > len(self.lines):
            self._log.warning(f"{total - len(self.lines)} more, not shown", **self.counts)
        if not total or self.on_bad == "skip":
            return
        counts = ", ".join(f"{reason} {number}" for reason, number in self.counts.items())
        raise DataError(
            f"{self.lines[0]} ({total} bad in all: {counts}); mend them, or set dataset.on_bad: skip to leave them out"
        )
