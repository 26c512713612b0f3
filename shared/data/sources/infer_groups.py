"""Infers which columns of a table of text are labels, and how they are written, for `tailfill init`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import count

from shared.config.dataset import CsvGroup
from shared.data.sources.csv_file import Table, listed
from shared.data.sources.csv_table import NOT, TRUTH
from shared.data.sources.infer_labels import (
    CIRCUMSTANCES,
    LABELS,
    LEAST_ROWS,
    MOST_CLASSES,
    MOST_NAMED_CLASSES,
    MOST_NUMBERS,
    SIZES,
    group_name,
    words_of,
)
from shared.data.sources.label_cells import MISSING_OR_CLASS, LabelCells, holds_brackets, is_missing, is_whole, whole
from shared.names import shown

SEVERAL_SHARE = 0.1  # of the images, that have several classes if a row is a label
LEAST_LENGTHS = 3  # different numbers of names in lists with blanks between them: names of several words have two or so
MANY_LISTS = 2  # times as many different lists of names with blanks between them as names
UNNAMED = re.compile(r"column_\d+")
"""Matches the name that a column gets if its file names none."""
DENSE = 0.9  # of the numbers up to the largest, that classes must have: one split may lack some


def table_groups(table: Table, columns: Sequence[str], notes: list[str]) -> dict[str, CsvGroup]:
    """Returns label groups by name: all 0/1 columns together, each column of lists, each column of a few names.

    Sizes and boxes are no labels. What says who or how was photographed is one only if nothing else is. Of two columns that divide the images alike, the
    one with names counts, not the one with numbers.
    """
    words = {words_of(column) for column in columns}
    sizes = SIZES | {"x", "y", "w", "h"} if {"x", "y"} <= words else SIZES
    columns = [column for column in columns if words_of(column) not in sizes]
    kept = [column for column in columns if words_of(column) not in CIRCUMSTANCES]
    groups, said = _groups(table, kept, notes), list[str]()
    groups = groups or _groups(table, columns, said)
    notes += said
    columns_of = {name: group.column for name, group in groups.items() if group.column is not None}
    return {
        name: group
        for name, group in groups.items()
        if not any(_is_code_of(table, group.column, other) for other in columns_of.values())
        and not any(_repeats_lists(table, group, other) for other in groups.values())
    }


def _repeats_lists(table: Table, flags: CsvGroup, lists: CsvGroup) -> bool:
    """Returns whether a 0/1 column per class says the same as a column of lists of the classes' names."""
    if flags.columns is None or lists.column is None or lists.kind != "any":
        return False
    read = LabelCells(lists, table.cells(lists.column)).read
    return all(
        {name for name in flags.columns if TRUTH.get(row.cells[name].lower()) == 1}
        == set(read(row.cells[lists.column]) or [])
        for row in table.rows
    )


def _is_code_of(table: Table, column: str | None, other: str) -> bool:
    """Returns whether a column numbers the names of another one."""
    if column is None or column == other:
        return False
    codes, names = table.cells(column), table.cells(other)
    pairs = set(zip(codes, names, strict=True))
    return (
        all(map(is_whole, codes)) and not all(map(is_whole, names)) and len(pairs) == len(set(codes)) == len(set(names))
    )


def _groups(table: Table, columns: Sequence[str], notes: list[str]) -> dict[str, CsvGroup]:
    groups: dict[str, CsvGroup] = {}
    flags = [c for c in columns if words_of(c) not in LABELS and _is_flags(table.cells(c))]
    numbers = class_numbers(table, columns)
    if len(flags) > 1:
        single = all(sum(TRUTH.get(row.cells[c].lower()) == 1 for c in flags) == 1 for row in table.rows)
        groups[group_name("labels", groups)] = CsvGroup(kind="one" if single else "any", columns=tuple(flags))
    for column in columns:
        if column in flags and len(flags) > 1:
            continue
        group = group_of(column, table.cells(column), notes)
        if group is None and column == numbers:
            group = _noted(CsvGroup(kind="one", column=column), column, table.cells(column), notes)
        if group is not None:
            groups[group_name(column, groups)] = group
    return groups


def class_numbers(table: Table, columns: Sequence[str]) -> str | None:
    """Returns the column without a name of its own whose whole numbers are classes, however many; None if there is none.

    They begin at 0 or 1, hardly leave one out, and each repeats. They also determine the other columns that repeat, as the number of a breed does that of
    its species: the corners of boxes and ages determine nothing.
    """
    for column in columns:
        if UNNAMED.fullmatch(column) is None or not _is_dense(table.cells(column)):
            continue
        others = [other for other in columns if other != column and repeats(table.cells(other))]
        if all(determines(table, column, other) for other in others):
            return column
    return None


def _is_dense(cells: list[str]) -> bool:
    known = [cell for cell in cells if not is_missing(cell)]
    if not known or not all(is_whole(cell) and whole(cell).isdecimal() and len(cell) < 10 for cell in known):
        return False
    times = Counter(int(whole(cell)) for cell in known)
    low, high = min(times), max(times)
    dense = low in (0, 1) and len(times) >= DENSE * (high - low + 1)
    return (
        dense
        and 1 < len(times) <= MOST_NAMED_CLASSES
        and min(times.values()) > 1
        and len(known) >= LEAST_ROWS * len(times)
    )


def determines(table: Table, column: str, other: str) -> bool:
    """Returns whether rows that are alike in a column are alike in another one."""
    found: dict[str, str] = {}
    return all(found.setdefault(a, b) == b for a, b in zip(table.cells(column), table.cells(other), strict=True))


def repeats(cells: list[str]) -> bool:
    """Returns whether a value is in several cells."""
    return len(set(cells)) < len(cells)


def _is_flags(cells: list[str]) -> bool:
    values = {cell.lower() for cell in cells if not is_missing(cell)}
    return bool(values) and values - NOT <= TRUTH.keys() and (values.isdisjoint(NOT) or len(values - NOT) > 0)


def group_of(column: str, cells: list[str], notes: list[str]) -> CsvGroup | None:
    """Returns the label group of a column, None if it holds no labels; adds to `notes` what might be meant otherwise."""
    known = [cell for cell in cells if not is_missing(cell)]
    if all(map(_is_boxes, known)):
        return None
    if holds_brackets(known):
        lists = CsvGroup(kind="any", column=column, separator=",")
        read = LabelCells(lists, known).read
        names = Counter(name for cell in known for name in read(cell) or [])
        one_per_class = names.keys() <= {"0", "1"}
        return lists if _repeat_enough(names) and not one_per_class else None
    if (separator := _separator(known)) is not None or (separator := _blank(column, known)) is not None:
        return _noted(CsvGroup(kind="any", column=column, separator=separator), column, cells, notes)
    group = CsvGroup(kind="one", column=column)
    return _noted(group, column, cells, notes) if _is_class(column, known, LabelCells(group, known)) else None


def _is_boxes(cell: str) -> bool:
    """Returns whether a cell holds classes with the four numbers of their boxes, as ImageNet's tables do: `n01440764 111 108 230 173`."""
    words = cell.split()
    return (
        bool(words) and len(words) % 5 == 0 and all(_is_number(word) for place, word in enumerate(words) if place % 5)
    )


def _blank(column: str, cells: list[str]) -> str | None:
    """Returns the blank if cells are lists with blanks between names, else None.

    Then each of the names is a cell of its own, too, or a column of labels has many more lists of different lengths than names.
    """
    names = Counter(name for cell in cells for name in cell.split())
    several = {cell for cell in cells if " " in cell}
    alone = names.keys() <= set(cells)
    many = len(several) > MANY_LISTS * len(names) and len({cell.count(" ") for cell in several}) >= LEAST_LENGTHS
    listed = alone or (words_of(column) in LABELS and many)
    return " " if several and listed and _repeat_enough(names) else None


def _repeat_enough(names: Counter[str]) -> bool:
    return 0 < len(names) <= MOST_CLASSES and names.total() >= LEAST_ROWS * len(names)


def _noted(group: CsvGroup, column: str, cells: list[str], notes: list[str]) -> CsvGroup:
    """Returns the group, with its classes if some cells might be classes or not, and notes what was decided."""
    known = [cell for cell in cells if not is_missing(cell)]
    classes = LabelCells(group, known).found
    unsure = Counter(cell for cell in cells if cell in MISSING_OR_CLASS)
    # codes of two or three capitals, such as EU and SA, have an NA among them
    codes = all(name.isupper() and len(name) <= 3 for name in classes)
    for text, number in sorted(unsure.items()):
        if codes and text == "NA":
            classes = tuple(sorted({*classes, text}))
            notes.append(
                f"{shown(column)}: {text!r} ({number} rows) is taken for a class; if it means unknown, take it out of `classes`"
            )
        else:
            notes.append(
                f"{shown(column)}: {text!r} ({number} rows) is taken for unknown; if it is a class, add it to `classes`"
            )
    if len(kinds := _in_other_case(classes)) > 0:
        notes.append(
            f"{shown(column)}: {listed(kinds)} differ in capitals only and count as different classes; write them alike if they are one"
        )
    if group.separator == " " and group.kind == "any":
        notes.append(f"{shown(column)}: names with a blank between them are taken for several classes")
    if all(map(is_whole, known)) and any("." in cell for cell in known):
        classes = tuple(sorted(set(map(whole, classes)), key=int))
    elif not unsure:
        return group
    return group.model_copy(update={"classes": classes})


def _in_other_case(classes: tuple[str, ...]) -> list[str]:
    folded = Counter(name.casefold() for name in classes)
    return [name for name in classes if folded[name.casefold()] > 1]


def without_empty(group: CsvGroup, table: Table, notes: list[str]) -> CsvGroup:
    """Returns a group of 0/1 columns without those that are 1 in no row, which are noted: a class without images is an error."""
    columns = [c for c in group.columns or () if any(TRUTH.get(cell.lower()) == 1 for cell in table.cells(c))]
    empty = [column for column in group.columns or () if column not in columns]
    if not empty or len(columns) < (2 if group.kind == "one" else 1):
        return group
    notes.append(f"no image is of {listed(empty)}, so these columns are left out")
    return group.model_copy(update={"columns": tuple(columns)})


def why_none(table: Table, columns: Sequence[str]) -> str:
    """Returns what to do about the column that may hold the labels, if none looks like labels; nothing if no column may."""
    for column in columns:
        known = [cell for cell in table.cells(column) if not is_missing(cell)]
        words = Counter(word for cell in known for word in cell.split())
        if words.total() > len(known) and _repeat_enough(words):
            return f"; if the cells of {shown(column)} are lists of names with blanks between them, write `|` in place of the blanks"
    for column in columns:
        known = [cell for cell in table.cells(column) if not is_missing(cell)]
        if (
            words_of(column) not in SIZES
            and len(known) >= 2 * len(set(known)) > 2
            and not any(map(_is_measured, known))
        ):
            return f"; if the {len(set(known)):,} different values of {shown(column)} are the classes, call that column `label` in the first line"
    return ""


def _is_measured(cell: str) -> bool:
    return _is_number(cell) and not is_whole(cell)


def with_several_classes(table: Table, path_column: str, groups: dict[str, CsvGroup]) -> dict[str, CsvGroup] | None:
    """Returns the groups, with `kind: any` for those of which images have several classes, each on a row of its own.

    Returns None if only a few images have: then these rows are mistakes, or too few to tell, and a person must say what they mean.
    """
    changed = {}
    for name, group in groups.items():
        changed[name] = group
        if group.kind == "any" or group.column is None:
            continue
        cells = LabelCells(group, table.cells(group.column))
        classes: dict[str, set[str]] = {}
        for row in table.rows:
            classes.setdefault(row.cells[path_column], set()).update(cells.read(row.cells[group.column]) or [])
        several = sum(len(names) > 1 for names in classes.values())
        if 0 < several < SEVERAL_SHARE * len(classes):
            return None
        if several:
            separator = next(bars for n in count(1) if not any((bars := "|" * n) in name for name in cells.found))
            changed[name] = group.model_copy(update={"kind": "any", "separator": separator})
    return changed


def _separator(cells: list[str]) -> str | None:
    """Returns what separates the names in a cell if the cells are lists of names that repeat, else None."""
    for separator in ("|", ";", ","):
        names = Counter(name.strip() for cell in cells for name in cell.split(separator) if name.strip())
        several = any(separator in cell for cell in cells)
        if several and _repeat_enough(names) and len(names) < len(set(cells)) * 2:
            return separator
    return None


def _is_class(column: str, cells: list[str], labels: LabelCells) -> bool:
    values, named = labels.found, words_of(column) in LABELS
    most, least = (MOST_NAMED_CLASSES, 2) if named else (MOST_CLASSES, LEAST_ROWS)
    if not 2 <= len(values) <= most or len(cells) < least * len(values):
        return False
    if not all(map(_is_number, values)):
        return True
    return all(value.lstrip("-").isdecimal() or is_whole(value) for value in values) and (
        len(values) <= MOST_NUMBERS or named
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
