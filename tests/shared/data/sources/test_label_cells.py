from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.dataset import CsvGroup
from shared.data.sources.label_cells import LabelCells, bracketed, holds_brackets, spelling

NAME = st.text(min_size=1, max_size=8).filter(str.strip)
ONE = CsvGroup(column="c")


@given(st.lists(NAME, max_size=4))
def test_lists_of_python_and_json_are_read_back(names: list[str]) -> None:
    assert bracketed(repr(names)) == names
    assert bracketed(json.dumps(names)) == names


@pytest.mark.parametrize("cell", ["cat", "[", "]", "(cat)", "[a]|[b]", "{'a': 1}", "['a'", "[['a'], 'b']", "['a]", ""])
def test_what_is_no_list(cell: str) -> None:
    assert bracketed(cell) is None


def test_a_column_with_a_bracket_that_is_no_list_holds_no_lists() -> None:
    assert holds_brackets(["['a']", "b"])
    assert not holds_brackets(["['a']", "b [old]"])
    assert not holds_brackets(["a", "nan"])


@given(st.lists(NAME, min_size=1, max_size=6))
def test_each_name_is_read_as_a_class_that_was_found(names: list[str]) -> None:
    cells = LabelCells(ONE, names)
    for name in names:
        read = cells.read(name)
        assert read is None or read[0] in cells.found
        assert spelling(unicodedata.normalize("NFD", name)) == spelling(name)


def test_a_class_is_named_as_it_is_written_unless_that_differs() -> None:
    composed, apart = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    assert LabelCells(ONE, [apart, "tea"]).found == (apart, "tea")
    both = LabelCells(ONE, [apart, composed, "tea"])
    assert both.found == (composed, "tea")
    assert both.read(apart) == both.read(composed) == [composed]


def test_whole_numbers_are_one_class_with_and_without_decimals() -> None:
    assert LabelCells(ONE, ["1.0", "2.0"]).found == ("1.0", "2.0")
    assert LabelCells(ONE, ["1.0", "1", "2.0"]).found == ("1", "2.0")
    assert LabelCells(ONE, ["1.0", "1", "1.5"]).found == ("1", "1.0", "1.5")


@pytest.mark.parametrize(
    ("classes", "cell", "read"),
    [
        (None, "", None),
        (None, "NaN", None),
        (None, "None", ["None"]),
        (("cat", "dog"), "None", None),
        (("cat", "None"), "None", ["None"]),
        (("cat", "NaN"), "NaN", ["NaN"]),
        (("cat", "dog"), "cow", ["cow"]),
    ],
)
def test_marks_of_missing_values(classes: tuple[str, ...] | None, cell: str, read: list[str] | None) -> None:
    assert LabelCells(CsvGroup(column="c", classes=classes), ["cat", cell]).read(cell) == read
