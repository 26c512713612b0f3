"""Infers what the columns of a CSV hold, for `tailfill init`, whose result a person reads over."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Literal

from shared.config.dataset import COLUMNS, CsvGroup, CsvSource
from shared.data.problems import Problems
from shared.data.source import InferredSource
from shared.data.sources.class_folders import holds_class_images
from shared.data.sources.csv_table import TRUTH, Table, read_table
from shared.data.sources.members import IMAGE_SUFFIXES, member_names
from shared.data.sources.paths import on_disk
from shared.data.sources.split_words import is_split_column, split_of
from shared.errors import DataError

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
UNITS = frozenset({"patient", "patient_id", "product", "product_id", "item", "item_id", "subject", "subject_id", "case_id", "lesion_id"})  # fmt: skip
"""Names columns whose equal values must stay in one split."""
CHECKED_ROWS = 500  # rows whose paths are tried
MOST_CLASSES = 200
MOST_NUMBERS = 20  # distinct whole numbers in a column that is still taken for classes, not for a measurement
LABEL_NAMES = frozenset({"label", "labels", "class", "category", "target", "y"})
DELIMITERS: tuple[Literal[",", ";", "\t"], ...] = (",", ";", "\t")


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
    if len(tables) == 1:
        return _infer_table(tables[0])
    if tables and not holds_class_images(data):
        raise DataError(
            f"{data}: holds {len(tables)} CSVs, name one of them; there must be a folder per class, or a CSV beside the images"
        )
    return None


def _infer_table(path: Path) -> InferredSource:
    delimiter = _delimiter(path)
    table = read_table(path, Problems("skip"), delimiter)
    if not table.rows:
        raise DataError(f"{path.name}: has no rows under its header; there must be a row per image")
    root = path.resolve().parent
    path_column, folder = _path_column(root, table)
    taken = {path_column}
    split_column = next((c for c in table.columns if c not in taken and _is_split(_cells(table, c))), None)
    taken.add(split_column or path_column)
    group_by = next((c for c in table.columns if c.lower() in UNITS and _repeats(_cells(table, c))), None)
    taken.add(group_by or path_column)
    groups = _groups(table, [c for c in table.columns if c not in taken and not is_split_column(c)])
    if not groups:
        raise DataError(
            f"{table.name}: no column looks like labels (a few names that repeat, 0/1, or a|b|c lists); its columns are "
            f"{list(table.columns)}"
        )
    dataset = CsvSource(
        source="csv",
        root=str(root),
        file=path.name,
        delimiter=delimiter,
        path_column=path_column,
        image_folder=folder,
        split_column=split_column,
        group_by=group_by,
        groups=groups,
    )
    comments = {
        "image_folder": "the paths start here",
        "group_by": "images with an equal value stay in one split"
        if group_by is not None
        else "group_by: patient # a column whose equal values must stay in one split",
        "groups": "a label group is `kind: one` class an image, or `any` number of them; delete what is no label",
    }
    return InferredSource(dataset, root, comments)


def _delimiter(path: Path) -> Literal[",", ";", "\t"]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = file.readline(1 << 16)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a CSV ({error}); save it as UTF-8 text") from error
    return max(DELIMITERS, key=header.count)


def _cells(table: Table, column: str) -> list[str]:
    return [row.cells[column] for row in table.rows]


def _path_column(root: Path, table: Table) -> tuple[str, str]:
    """Returns the column whose cells most often name files, and the folder from which they start."""
    folders = [".", *(name for name in member_names(root) if (root / name).is_dir())]
    best = (0.0, "", "")
    rows = table.rows[:CHECKED_ROWS]
    for column in table.columns:
        for folder in folders:
            hits = sum(_is_image(root / folder, row.cells[column]) for row in rows)
            if hits / len(rows) > best[0]:
                best = (hits / len(rows), column, folder)
    if best[0] < 0.5:
        raise DataError(
            f"{table.name}: no column names image files below {root} (the best, {best[1] or table.columns[0]!r}, does in "
            f"{best[0]:.0%} of the rows); paths must start from the CSV's folder or one in it"
        )
    return best[1], best[2]


def _is_image(folder: Path, cell: str) -> bool:
    try:
        path = PurePosixPath(cell)
        if path.is_absolute() or ".." in path.parts:
            return False
        return path.suffix.lower() in IMAGE_SUFFIXES and (folder / on_disk(folder, str(path))).is_file()
    except (OSError, ValueError):  # too long for a name, or a null character
        return False


def _is_split(cells: list[str]) -> bool:
    splits = {split_of(cell) for cell in cells}
    return "train" in splits and len(splits) > 1 and None not in splits


def _repeats(cells: list[str]) -> bool:
    return len(set(cells)) < len(cells)


def _groups(table: Table, columns: list[str]) -> dict[str, CsvGroup]:
    """Returns label groups by name: all 0/1 columns together, each column of lists, each column of a few names."""
    groups: dict[str, CsvGroup] = {}
    flags = [
        c
        for c in columns
        if {cell.lower() for cell in _cells(table, c)} - {""} <= TRUTH.keys() and any(_cells(table, c))
    ]
    if len(flags) > 1:
        groups[_group_name("labels", groups)] = CsvGroup(kind="any", columns=tuple(flags))
    for column in columns:
        if column in flags and len(flags) > 1:
            continue
        cells = [cell for cell in _cells(table, column) if cell]
        if (separator := _separator(cells)) is not None:
            groups[_group_name(column, groups)] = CsvGroup(kind="any", column=column, separator=separator)
        elif _is_class(column, cells):
            groups[_group_name(column, groups)] = CsvGroup(kind="one", column=column)
    return groups


def _separator(cells: list[str]) -> str | None:
    """Returns what separates the names in a cell if the cells are lists of names that repeat, else None."""
    for separator in ("|", ";", ","):
        names = Counter(name.strip() for cell in cells for name in cell.split(separator) if name.strip())
        several = any(separator in cell for cell in cells)
        if (
            several
            and len(names) <= MOST_CLASSES
            and names.total() >= 3 * len(names)
            and len(names) < len(set(cells)) * 2
        ):
            return separator
    return None


def _is_class(column: str, cells: list[str]) -> bool:
    values = set(cells)
    if not 2 <= len(values) <= MOST_CLASSES or len(cells) < 3 * len(values):
        return False
    numbers = [_is_number(value) for value in values]
    if not all(numbers):
        return True
    whole = all(value.lstrip("-").isdecimal() for value in values)
    return whole and (len(values) <= MOST_NUMBERS or column.lower() in LABEL_NAMES)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _group_name(column: str, taken: dict[str, CsvGroup]) -> str:
    """Returns a name for the label group of a column that is valid and not taken."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in column).strip("_-")[:50] or "label"
    if name in COLUMNS:
        name = f"{name}_label"
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate
