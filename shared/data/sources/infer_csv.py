"""Infers what the columns of a CSV hold, for `tailfill init`, whose result a person reads over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shared.config.dataset import CsvGroup, CsvSource, SplitName
from shared.data.problems import Problems
from shared.data.source import InferredSource
from shared.data.sources.class_folders import holds_class_images
from shared.data.sources.csv_file import Delimiter, Table, find_delimiter, first_row, listed, read_table
from shared.data.sources.csv_parts import FILE_SPLIT
from shared.data.sources.infer_groups import (
    class_numbers,
    group_of,
    repeats,
    table_groups,
    why_none,
    with_several_classes,
    without_empty,
)
from shared.data.sources.infer_labels import (
    LABELS,
    MOST_NUMBERS,
    column_comments,
    repeated_id,
    split_column,
    unit_column,
    words_of,
)
from shared.data.sources.infer_names import class_names
from shared.data.sources.infer_paths import PathColumn, find_path_column
from shared.data.sources.label_cells import is_whole
from shared.data.sources.members import is_image_name, member_names
from shared.data.sources.sheets import TABLE_SUFFIXES, numbered_columns, unnamed
from shared.data.sources.split_words import is_split_column, split_in_path, split_of, split_of_file
from shared.errors import DataError
from shared.names import shown

NUMBERED_SPLITS: dict[str, SplitName] = {"0": "train", "1": "val", "2": "test"}
"""Maps the numbers of a column of splits, if there are three."""
FEW_GROUPS = 3  # label groups that a table may well have


def infer_csv(data: Path) -> InferredSource | None:
    """Returns the source of a CSV, or of a folder with one CSV; None if the folder has none, or several beside class folders.

    Raises DataError that says what is missing if the CSV names no images or no labels, or if there are several CSVs and no class folders.
    """
    if data.is_file():
        return _infer_table(data)
    tables = labelled_tables(data)
    if len(tables) == 1:
        return _infer_table(tables[0])
    if tables and not holds_class_images(data):
        raise DataError(
            f"{data}: holds {len(tables)} CSVs, name one of them; there must be a folder per class, or a CSV beside the images"
        )
    return None


def labelled_tables(data: Path) -> list[Path]:
    """Returns the CSVs in a folder; if only one of them has labels, as the others are for those who take part in a competition, that one."""
    tables = [
        data / name
        for name in member_names(data)
        if Path(name).suffix.lower() in TABLE_SUFFIXES and (data / name).is_file()
    ]
    labelled = [path for path in tables if not without_labels(path)]
    return labelled if len(labelled) == 1 else tables


def without_labels(path: Path) -> bool:
    """Returns whether a table is named as one of images whose labels are to be found."""
    return "submission" in path.stem.lower() or split_of(path.stem) == "test"


def _infer_table(path: Path) -> InferredSource:
    delimiter = find_delimiter(path)
    root = path.resolve().parent
    table, found, header = _with_header(root, path, delimiter)
    fields = {"file": path.name, "delimiter": delimiter, "header": header}
    return table_source(root, {name: value for name, value in fields.items() if value is not None}, table, found)


def table_source(
    root: Path,
    fields: Mapping[str, Any],
    table: Table,
    found: PathColumn,
    columns: Sequence[str] | None = None,
    names: Mapping[str, str] | None = None,
) -> InferredSource:
    """Returns the source of a table whose file is described by `fields`.

    `columns` are those that may be labels, if not all; `names` names the groups of columns that have no name of their own. Raises DataError if no column
    looks like labels.
    """
    taken: set[str | None] = {found.column, FILE_SPLIT}
    free = [column for column in table.columns if column and column not in taken]
    divided = FILE_SPLIT in table.columns and len(set(table.cells(FILE_SPLIT)) - {""}) > 1
    divided_by, values = (None, {}) if divided else _split_column(table, free, found.column)
    group_by = unit_column(free, table.cells)
    taken |= {divided_by, group_by}
    notes: list[str] = []
    wanted = [c for c in free if c not in taken and not is_split_column(c) and (columns is None or c in columns)]
    groups, per_label = _label_groups(table, found.column, wanted, notes)
    if group_by is None and not (divided or divided_by):  # else each split may number its own images
        group_by = repeated_id(free, table.cells)
    if not per_label:
        groups = {name: _with_names(group, root, fields["file"], table, found) for name, group in groups.items()}
    if unnamed(fields.get("header")):
        notes += _many_numbers(groups, table)
    groups = {(names or {}).get(name, name): group for name, group in groups.items()}
    notes += _many_groups(groups)
    settings = {
        "rows": "label" if per_label else None,
        "path_column": found.column,
        "path_prefix": found.prefix or None,
        "lookup": found.lookup if found.lookup != "path" else None,
        "name_suffix": found.suffix or None,
        "image_folder": found.image_folder,
        "split_values": values or None,
    }
    dataset = CsvSource.model_validate(
        {
            "source": "csv",
            "root": str(root),
            **fields,
            **{name: value for name, value in settings.items() if value is not None},
            "split_column": divided_by,
            "group_by": group_by,
            "groups": groups,
        }
    )
    return InferredSource(dataset, root, _comments(found, group_by), tuple(notes))


def _comments(found: PathColumn, group_by: str | None) -> dict[str, str]:
    """Returns the comments that `init` writes beside the fields of a table."""
    return {
        "header": "the names of the columns, as the first row is an image already",
        "file_folder": "the images of `file` are in this folder, and those of the others in the `folder` of each",
        "more": "other files, whose rows are added, or joined `on` a column",
        "rows": "an image may stand on several rows, and has the labels of all of them",
        "path_prefix": "what the paths begin with, and is left out",
        "lookup": "the column has names of files, with or without their ending",
        "name_suffix": "what the files' names have behind those in the table",
        "image_folder": "the paths start here" if found.lookup == "path" else "the images are somewhere in this folder",
        **column_comments(group_by),
    }


def _many_groups(groups: Mapping[str, CsvGroup]) -> list[str]:
    """Returns a note if so many columns are label groups, or such beside one that is called as labels are, that some may say something else."""
    named = [name for name, group in groups.items() if words_of(group.column or "") in LABELS]
    if len(groups) <= (1 if named else FEW_GROUPS):
        return []
    others = [name for name in groups if name not in named]
    said = f"{len(groups)} label groups were found; take out of `groups` what is no label: {listed(others)}"
    return [said] if others else []


def _label_groups(
    table: Table, path_column: str, columns: Sequence[str], notes: list[str]
) -> tuple[dict[str, CsvGroup], bool]:
    """Returns the label groups among columns, and whether a row holds one label of an image that may have several.

    Raises DataError if no column looks like labels.
    """
    groups = table_groups(table, columns, notes)
    if not groups:
        raise DataError(
            f"{table.name}: no column looks like labels (a few names that repeat, 0/1, or a|b|c lists); its columns are "
            f"{listed(table.columns)}{why_none(table, columns)}"
        )
    groups = {name: without_empty(group, table, notes) for name, group in groups.items()}
    if not repeats([cell for cell in table.cells(path_column) if cell]):
        return groups, False
    # of a column per class, each row has one
    groups = {n: g.model_copy(update={"kind": "any"}) if g.columns else g for n, g in groups.items()}
    several = with_several_classes(table, path_column, groups)
    if several is None:
        return groups, False
    notes.append("some images stand on several rows: each image has the labels of all its rows")
    return several, True


def _many_numbers(groups: Mapping[str, CsvGroup], table: Table) -> list[str]:
    """Returns a line for each group whose classes are many numbers in a column that its file does not name: they may count or measure something."""
    return [
        f"the {len(found):,} different numbers of {shown(group.column)} are taken for classes"
        for group in groups.values()
        if group.column is not None
        and not group.names
        and len(found := set(table.cells(group.column)) - {""}) > MOST_NUMBERS
        and all(map(is_whole, found))
    ]


def _with_names(group: CsvGroup, root: Path, file: str, table: Table, found: PathColumn) -> CsvGroup:
    """Returns a group whose classes have names, if they are codes and something names them."""
    if group.kind != "one" or group.column is None:
        return group
    named = class_names(root, Path(file), table, found.column, group.column)
    return group.model_copy(update={"names": named}) if named else group


def _split_column(table: Table, columns: Sequence[str], path_column: str) -> tuple[str | None, dict[str, SplitName]]:
    """Returns the column that says the split, and what its numbers mean; the paths' own column if all their words do; None if nothing does."""
    if (column := split_column(columns, table.cells)) is not None:
        return column, {}
    for column in columns:
        if values := numbered_splits(column, table.cells(column)):
            return column, values
    said = {split_in_path(cell) for cell in table.cells(path_column)}
    return (path_column, {}) if "train" in said and len(said) > 1 and None not in said else (None, {})


def numbered_splits(column: str, cells: Sequence[str]) -> dict[str, SplitName]:
    """Returns what the cells of a column mean that numbers the splits or says whether an image is of one; nothing if it does neither."""
    word, values = words_of(column), {cell.lower() for cell in cells}
    if word in ("partition", "split", "data_split") and values <= NUMBERED_SPLITS.keys() and len(values) > 1:
        return {cell: NUMBERED_SPLITS[cell] for cell in sorted(values)}
    said = split_of(word.removeprefix("is_")) if word.startswith("is_") else None
    if said is None or not values <= {"0", "1", "true", "false"} or len(values) != 2:
        return {}
    other: SplitName = "test" if said == "train" else "train"
    return {cell: said if cell.lower() in ("1", "true") else other for cell in sorted(set(cells))}


def _with_header(root: Path, path: Path, delimiter: Delimiter) -> tuple[Table, PathColumn, tuple[str, ...] | None]:
    """Returns the table, its path column, and names for the columns if its first row is an image already, else None."""
    first = first_row(path, delimiter)
    if not any(map(is_image_name, first)):
        table = read_table(path, Problems("skip"), delimiter)
        if not table.rows:
            raise DataError(f"{path.name}: has no rows under its header; there must be a row per image")
        found = find_path_column(root, table, split=split_of_file(path.stem))
        if not found.names_image(root):
            return table, found, None
    header = numbered_columns(len(first))
    table = read_table(path, Problems("skip"), delimiter, header)
    found = find_path_column(root, table, split=split_of_file(path.stem))
    others = [column for column in header if column != found.column]
    numbers = class_numbers(table, others)
    labels = [numbers] if numbers is not None else []
    labels = labels or [column for column in others if group_of(column, table.cells(column), []) is not None]
    names = {found.column: "path", **({labels[0]: "label"} if len(labels) == 1 else {})}
    header = tuple(names.get(column, column) for column in header)
    return read_table(path, Problems("skip"), delimiter, header), replace(found, column="path"), header
