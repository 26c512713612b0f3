"""Writes measurements as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Returns a table whose first row is its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    return "\n".join(lines)


def times(ratio: float) -> str:
    """Returns a ratio as text."""
    return f"{ratio:.1f} ×" if ratio >= 10 else f"{ratio:.2f} ×"


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Returns the text `mean ± standard deviation`, or the only value."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"
