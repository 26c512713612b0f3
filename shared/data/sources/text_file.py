"""Reads files of text and JSON that a data set holds, whose size and content are whatever somebody made them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from shared.errors import DataError

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""Matches the escape of half a character, which JSON may hold and UTF-8 may not."""


def read_text_file(path: Path, name: str, most_bytes: int) -> str:
    """Returns the text of a UTF-8 file, without a byte-order mark and with `\\n` at the end of its lines.

    `name` is what errors call the file. Raises DataError if it cannot be read, is larger than `most_bytes`, or is not UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > most_bytes:
            raise DataError(f"{name}: has {size:,} bytes, at most {most_bytes:,} are read; split it")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror}); make it readable") from error


def parse_json(text: str) -> Any:
    """Returns the value of a JSON text; raises ValueError if it is none, is nested too deep, or holds half a character."""
    try:
        value = json.loads(text)
        if SURROGATE.search(text) is not None:
            json.dumps(value, ensure_ascii=False).encode()  # raises a ValueError, unless two halves are a whole
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    return value
