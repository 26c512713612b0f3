"""Writes what a failed lookup suggests: similar names, or all names."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def near(word: str, known: Collection[str]) -> str:
    """Returns `; did you mean …?` with names similar to `word`, or the list of all known names if none is similar."""
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are {', '.join(sorted(known))}"


def did_you_mean(word: object, known: Collection[str]) -> str:
    """Returns `; did you mean …?` with the name most similar to `word`, or nothing if none is similar."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6) if isinstance(word, str) else []
    return f"; did you mean {close[0]}?" if close else ""
