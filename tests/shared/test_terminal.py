"""Tests that text of others reaches a terminal without its control characters."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from shared.terminal import escaped, escaped_lines, shortened


@given(st.text())
def test_nothing_commands_the_terminal(text: str) -> None:
    assert not [c for c in escaped(text) if ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000]
    assert escaped_lines(text).count("\n") == text.count("\n")
    escaped(text).encode()
    assert len(escaped(text).splitlines()) <= 1


def test_what_people_write_stays() -> None:
    for text in ("training.lr 1e-3", "Größe — 水色 \U0001f600 \u0646\u200c\u0647", "a\\b"):
        assert escaped(text) == text


def test_json_keeps_its_meaning() -> None:
    tree = {"a": "\x1b\u202e\x7f\u2028"}
    assert json.loads(escaped_lines(json.dumps(tree, ensure_ascii=False))) == tree


def test_a_long_text_loses_its_middle() -> None:
    assert shortened("begin" + "x" * 1000 + "end", 30) == "beginxxxxxxxxxxxxxx…xxxxxxxend"
    assert shortened("short", 30) == "short"
