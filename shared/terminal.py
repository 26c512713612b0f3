"""Escapes text that somebody else wrote before it reaches a terminal, which would obey its control characters."""

from __future__ import annotations

import re

_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Matches control characters, line separators, what turns the direction of writing, and halves of characters, which cannot be written."""


def escaped(text: str) -> str:
    r"""Returns text on one line, with `\u001b` in place of an escape character, and so on: in JSON it still means the same."""
    return _OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def escaped_lines(text: str) -> str:
    """Returns text of several lines, in which only line breaks and tabs are left unescaped."""
    return "\n".join("\t".join(map(escaped, line.split("\t"))) for line in text.split("\n"))


def shortened(text: str, longest: int) -> str:
    """Returns text on one line, escaped, and without its middle if it has more than `longest` characters."""
    text = escaped(text)
    if len(text) <= longest:
        return text
    tail = longest // 3
    return f"{text[: longest - tail - 1]}…{text[-tail:]}"
