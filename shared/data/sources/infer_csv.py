"""Infers what the columns of a CSV hold, for `tailfill init`, whose result a person reads over."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path

from shared.config.dataset import CsvGroup, CsvSource
from shared.data.problems import Problems
from shared.data.source import InferredSource
from shared.data.sources.class_folders import holds_class_images
from shared.data.sources.csv_file import Delimiter, Table, find_delimiter, first_row, listed, read_table
from shared.data.sources.csv_table import TRUTH
from shared.data.sources.infer_labels import (
    MOST_CLASSES,
    MOST_NUMBERS,
    column_comments,
    group_name,
    split_column,
    unit_column,
)
from shared.data.sources.infer_paths import PathColumn, find_path_column
from shared.data.sources.label_cells import MISSING_OR_CLASS, LabelCells, holds_brackets, is_missing, is_whole, whole
from shared.data.sources.members import is_image_name, member_names
from shared.data.sources.split_words import is_split_column, split_of
from shared.errors import DataError
from shared.names import shown

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
SEVERAL_SHARE = 0.1  # of the images, that have several classes if a row is a label
LABEL_NAMES = frozenset({"label", "labels", "class", "category", "target", "y"})


def infer_csv(data: Path) -> InferredSource | None:
    """Returns the source of a CSV, or of a folder with one CSV; None if the folder has none, or several beside class folders.

    Raises DataError that says what is missing if the CSV names no images or no labels, or if there are several CSVs and no class folders.
    """
    if data.is_file():
        return _infer_table(data)
    tables = [
        data / name
        for name in member_names(data)
        if Path(name).suffix.lower() in TABLE_SUFFIXES and (data / name).is_file()
    ]
    if len(labelled := [path for path in tables if not _without_labels(path)]) == 1:
        tables = labelled  # the others are for those who take part in a competition
    if len(tables) == 1:
        return _infer_table(tables[0])
    if tables and not holds_class_images(data):
        raise DataError(
            f"{data}: holds {len(tables)} CSVs, name one of them; there must be a folder per class, or a CSV beside the images"
        )
    return None


def _without_labels(path: Path) -> bool:
    return "submission" in path.stem.lower() or split_of(path.stem) == "test"


def _infer_table(path: Path) -> InferredSource:
    delimiter = find_delimiter(path)
    root = path.resolve().parent
    table, found, header = _with_header(root, path, delimiter)
    taken: set[str | None] = {found.column}
    divided_by = split_column((c for c in table.columns if c not in taken), table.cells)
    group_by = unit_column((c for c in table.columns if c not in taken), table.cells)
    taken |= {divided_by, group_by}
    per_label = _repeats([cell for cell in table.cells(found.column) if cell])
    notes: list[str] = []
    groups = _groups(table, [c for c in table.columns if c and c not in taken and not is_split_column(c)], notes)
    if not groups:
        raise DataError(
            f"{table.name}: no column looks like labels (a few names that repeat, 0/1, or a|b|c lists); its columns are "
            f"{listed(table.columns)}"
        )
    several = _with_several_classes(table, found.column, groups) if per_label else None
    if several is not None:
        groups = several
        notes.append("some images stand on several rows: each image has the labels of all its rows")
    fields = {
        "header": header,
        "rows": "label" if several is not None else None,
        "path_column": found.column,
        "path_prefix": found.prefix or None,
        "lookup": found.lookup if found.lookup != "path" else None,
        "image_folder": found.image_folder,
    }
    dataset = CsvSource.model_validate(
        {
            "source": "csv",
            "root": str(root),
            "file": path.name,
            "delimiter": delimiter,
            **{name: value for name, value in fields.items() if value is not None},
            "split_column": divided_by,
            "group_by": group_by,
            "groups": groups,
        }
    )
    comments = {
        "header": "the names of the columns, as the first row is an image already",
        "rows": "an image may stand on several rows, and has the labels of all of them",
        "path_prefix": "what the paths begin with, and is left out",
        "lookup": "the column has names of files, with or without their ending",
        "image_folder": "the paths start here" if found.lookup == "path" else "the images are somewhere in this folder",
        **column_comments(group_by),
    }
    return InferredSource(dataset, root, comments, tuple(notes))


def _with_header(root: Path, path: Path, delimiter: Delimiter) -> tuple[Table, PathColumn, tuple[str, ...] | None]:
    """Returns the table, its path column, and names for the columns if its first row is an image already, else None."""
    first = first_row(path, delimiter)
    if not any(map(is_image_name, first)):
        table = read_table(path, Problems("skip"), delimiter)
        if not table.rows:
            raise DataError(f"{path.name}: has no rows under its header; there must be a row per image")
        found = find_path_column(root, table)
        # an id names an image without its ending; a file may be called as a header is, such as `image`
        is_id = found.lookup == "name" and any(map(str.isdigit, found.column))
        if not (is_id and found.paths(root).exists(found.column)):
            return table, found, None
    header = [f"column_{number}" for number in range(1, len(first) + 1)]
    table = read_table(path, Problems("skip"), delimiter, header)
    found = find_path_column(root, table)
    others = [column for column in header if column != found.column]
    labels = [column for column in others if _group_of(column, table.cells(column), []) is not None]
    names = {found.column: "path", **({labels[0]: "label"} if len(labels) == 1 else {})}
    header = [names.get(column, column) for column in header]
    return read_table(path, Problems("skip"), delimiter, header), replace(found, column="path"), tuple(header)


def _repeats(cells: list[str]) -> bool:
    return len(set(cells)) < len(cells)


def _groups(table: Table, columns: list[str], notes: list[str]) -> dict[str, CsvGroup]:
    """Returns label groups by name: all 0/1 columns together, each column of lists, each column of a few names."""
    groups: dict[str, CsvGroup] = {}
    flags = [c for c in columns if _is_flags(table.cells(c))]
    if len(flags) > 1:
        groups[group_name("labels", groups)] = CsvGroup(kind="any", columns=tuple(flags))
    for column in columns:
        if column in flags and len(flags) > 1:
            continue
        if (group := _group_of(column, table.cells(column), notes)) is not None:
            groups[group_name(column, groups)] = group
    return groups


def _is_flags(cells: list[str]) -> bool:
    values = {cell.lower() for cell in cells if not is_missing(cell)}
    return bool(values) and values <= TRUTH.keys()


def _group_of(column: str, cells: list[str], notes: list[str]) -> CsvGroup | None:
    """Returns the label group of a column, None if it holds no labels; adds to `notes` what might be meant otherwise."""
    known = [cell for cell in cells if not is_missing(cell)]
    if holds_brackets(known):
        lists = CsvGroup(kind="any", column=column, separator=",")
        names = Counter(name for cell in known for name in LabelCells(lists, known).read(cell) or [])
        return lists if _repeat_enough(names) else None
    if (separator := _separator(known)) is not None:
        return _noted(CsvGroup(kind="any", column=column, separator=separator), column, cells, notes)
    group = CsvGroup(kind="one", column=column)
    return _noted(group, column, cells, notes) if _is_class(column, known, LabelCells(group, known)) else None


def _repeat_enough(names: Counter[str]) -> bool:
    return 0 < len(names) <= MOST_CLASSES and names.total() >= 3 * len(names)


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
    if group.kind == "one" and (words := _made_of_others(classes)):
        notes.append(
            f'{shown(column)}: {shown(words)} is taken for one class; if it is a list, set `kind: any` and `separator: " "` for its group'
        )
    if all(map(is_whole, known)) and any("." in cell for cell in known):
        classes = tuple(sorted(set(map(whole, classes)), key=int))
    elif not unsure:
        return group
    return group.model_copy(update={"classes": classes})


def _in_other_case(classes: tuple[str, ...]) -> list[str]:
    folded = Counter(name.casefold() for name in classes)
    return [name for name in classes if folded[name.casefold()] > 1]


def _made_of_others(classes: tuple[str, ...]) -> str | None:
    """Returns a class whose words are all classes of their own, if every class of several words is so."""
    several = [name for name in classes if " " in name]
    return several[0] if several and all(set(name.split()) <= set(classes) for name in several) else None


def _with_several_classes(table: Table, path_column: str, groups: dict[str, CsvGroup]) -> dict[str, CsvGroup] | None:
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
    values = labels.found
    if not 2 <= len(values) <= MOST_CLASSES or len(cells) < 3 * len(values):
        return False
    if not all(map(_is_number, values)):
        return True
    return all(value.lstrip("-").isdecimal() or is_whole(value) for value in values) and (
        len(values) <= MOST_NUMBERS or column.lower() in LABEL_NAMES
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
