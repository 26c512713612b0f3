from __future__ import annotations

from pathlib import Path

import pytest

from shared.data.sources.text_file import parse_json, read_text_file
from shared.errors import DataError


def test_a_mark_and_other_ends_of_lines_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntw\xc3\xb6\r")
    assert read_text_file(tmp_path / "a.txt", "a.txt", 99) == "one\ntwö\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "list: is not UTF-8 text"),
        (b"0123456789", "list: has 10 bytes, at most 9 are read"),
        (None, "list: cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_text_file(tmp_path / "a.txt", "list", 9)


@pytest.mark.parametrize(
    ("text", "value"), [("[1]", [1]), ('"\\ud83d\\ude00"', "\U0001f600"), ('"\\\\ud83d"', "\\ud83d")]
)
def test_json_is_parsed(text: str, value: object) -> None:
    assert parse_json(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "Expecting value"),
        ("[" * 99_999, "nested too deep"),
        ('"\\ud800"', "surrogates"),
        ('{"a\\uDFFF": 1}', "surrogates"),
        ("9" * 9_999, "digits"),
    ],
)
def test_what_is_no_json_or_no_text_is_a_value_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)
