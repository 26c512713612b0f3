"""What a failed lookup says: the near names, or all that there are."""

from __future__ import annotations

import difflib
from collections.abc import Collection


def near(word: str, known: Collection[str]) -> str:
    """Returns `; did you mean …?`, or the list of what there is if nothing is near."""
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are {', '.join(sorted(known))}"
