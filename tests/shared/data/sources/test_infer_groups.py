from __future__ import annotations

from collections.abc import Sequence

import pytest

from shared.data.sources.csv_file import Row, Table
from shared.data.sources.infer_groups import class_numbers, table_groups, why_none, without_empty


def table(columns: Sequence[str], *rows: Sequence[object]) -> Table:
    cells = [dict(zip(columns, map(str, row), strict=True)) for row in rows]
    return Table("list.txt", tuple(columns), [Row(line, row) for line, row in enumerate(cells, 1)])


def numbers(*columns: Sequence[object]) -> str | None:
    """Returns which of columns without names holds the numbers of classes."""
    names = [f"column_{n}" for n in range(2, 2 + len(columns))]
    return class_numbers(table(names, *zip(*columns, strict=True)), names)


BREED = [n % 37 + 1 for n in range(37 * 4)]


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ([BREED], "column_2"),
        ([[n - 1 for n in BREED]], "column_2"),
        ([[f"{n}.0" for n in BREED]], "column_2"),
        ([BREED, [1 + n % 2 for n in BREED]], "column_2"),  # the species
        ([[1 + n % 2 for n in BREED], BREED], "column_3"),
        ([range(len(BREED)), BREED], "column_3"),  # a number of the image
        ([BREED, [n // 2 for n in range(len(BREED))]], None),  # persons of several breeds
        ([[n * 2 for n in BREED]], None),  # every other number
        ([[n + 100 for n in BREED]], None),
        ([[f"{n}.5" for n in BREED]], None),
        ([[*BREED, 38]], None),  # a number that stands once
        ([[n // 2 for n in range(100)]], None),  # two of each
        ([["9" * 5000, "1"] * 10], None),
    ],
)
def test_numbers_without_a_name_are_classes_if_they_leave_none_out_and_determine_the_rest(
    columns: list[Sequence[object]], found: str | None
) -> None:
    assert numbers(*columns) == found


def test_a_column_with_a_name_is_no_class_for_its_numbers() -> None:
    ages = table(["age"], *([n] for n in BREED))
    assert class_numbers(ages, ["age"]) is None
    assert table_groups(ages, ["age"], []) == {}


def test_columns_that_are_1_in_no_row_are_left_out() -> None:
    notes: list[str] = []
    found = table(["a", "b", "c"], *([1, 0, 0], [0, 1, 0]) * 3)
    group = without_empty(table_groups(found, found.columns, [])["labels"], found, notes)
    assert (group.columns, notes) == (("a", "b"), ["no image is of ['c'], so these columns are left out"])
    alone = table(["a", "b"], *([1, 0] for _ in range(6)))
    kept = table_groups(alone, alone.columns, [])["labels"]
    assert without_empty(kept, alone, notes) == kept


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([[f"w_{n % 300}"] for n in range(900)], "if the 300 different values of 'tags' are the classes, call that column `label`"),
        ([[f"{'haze primary' if n % 2 else 'clear water'} {'road' if n % 3 else 'farm'}"] for n in range(90)], "write `|` in place of the blanks"),
        ([[n / 7] for n in range(90)], ""),
        ([[f"name {n}"] for n in range(90)], ""),
    ],
)  # fmt: skip
def test_what_may_be_labels_is_said(rows: list[list[object]], why: str) -> None:
    said = why_none(table(["tags"], *rows), ["tags"])
    assert why in said
    assert bool(said) == bool(why)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["n01 1 2 3 4", "n02 1 2 3 4"] * 9, None),  # boxes
        (["n01 1 2 3 4 n01 5 6 7 8 ", "n02 1 2 3 4"] * 9, None),
        (["9" * 5000 + " 1 1 1 1", "a"] * 9, "one"),
        (["[0, 1, 0]", "[1, 0, 0]"] * 9, None),  # a 0 or 1 per class
        (["['a', 'a']", "['b']"] * 9, "any"),
    ],
)
def test_boxes_and_a_0_or_1_per_class_in_one_cell_are_no_labels(cells: list[str], kind: str | None) -> None:
    found = table_groups(table(["label"], *([cell] for cell in cells)), ["label"], [])
    assert [group.kind for group in found.values()] == ([kind] if kind else [])


@pytest.mark.parametrize(
    ("column", "cells", "kind"),
    [
        ("tags", [" ".join("abcdef"[i] for i in range(6) if n >> i & 1) for n in range(3, 64)], "any"),
        ("tags", ["red apple", "green apple", "red pear", "green pear"] * 9, "one"),
        ("tags", [f"{a} {b}" for a in "abcde" for b in "vwxyz" for _ in range(3)], "one"),  # names of two words
        ("kind", [" ".join("abcdef"[i] for i in range(6) if n >> i & 1) for n in range(3, 64)] * 3, "one"),
    ],
)
def test_blanks_are_between_names_if_a_column_of_labels_has_many_more_lists_than_names(
    column: str, cells: list[str], kind: str
) -> None:
    (group,) = table_groups(table([column], *([cell] for cell in cells)), [column], []).values()
    assert group.kind == kind


def test_columns_per_class_that_say_the_same_as_lists_are_left_out() -> None:
    rows = [("['a', 'b']", 1, 1), ("['b']", 0, 1), ("[]", 0, 0)] * 4
    assert list(table_groups(table(["genre", "a", "b"], *rows), ["genre", "a", "b"], [])) == ["genre"]
    rows = [*rows, ("['a']", 1, 1)]
    assert list(table_groups(table(["genre", "a", "b"], *rows), ["genre", "a", "b"], [])) == ["labels", "genre"]
