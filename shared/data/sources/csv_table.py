"""Reads a CSV with a row per image or per label: a path column, label columns, optionally the split and a column of what must stay together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from shared.config.dataset import CsvGroup, CsvSource
from shared.data.problems import Problems
from shared.data.schema import LabelGroup, Labels, LabelSchema
from shared.data.source import ImageListing, SourceImage, SplitName
from shared.data.sources.csv_file import Row, Table, listed
from shared.data.sources.csv_parts import FILE_SPLIT, inside, joined_table
from shared.data.sources.label_cells import LabelCells, is_missing, spelling
from shared.data.sources.members import is_image_name
from shared.data.sources.paths import PathCheck, existing_root
from shared.data.sources.split_words import split_in_path, split_of
from shared.data.sources.table_paths import TablePaths
from shared.errors import ConfigError, DataError
from shared.names import shown

TRUTH = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0, "": -1}
"""Maps what a 0/1 cell may hold to its label (pandas writes 1.0 if a column has blanks); blank is unknown."""

NOT = frozenset({"-1", "-1.0"})
"""Lists what stands for no beside a 1, and for unknown beside a 0 and a 1."""

ROW_PER_LABEL = "set dataset.rows: label and `kind: any` for its groups, to give it the labels of all its rows"


def read_csv(config: CsvSource, root: Path, problems: Problems) -> ImageListing:
    """Lists the images that the rows of the table name.

    Raises DataError if the table cannot be read, has no header, or has other labels for the same image in another row; ConfigError if it lacks
    a column that the study names.
    """
    root = existing_root(root)
    folder = inside(root, config.image_folder, "image_folder")
    table = joined_table(config, root, problems)
    table = _with_the_study_s_spelling(config, table)
    for setting, column in _named_columns(config):
        if column not in table.columns:
            raise ConfigError(
                f"dataset.{setting}: {table.name} has no column {shown(column)}; it has {listed(table.columns)}"
            )
    table = _named(config, table)
    paths = TablePaths(folder, config.path_prefix, config.lookup, config.name_suffix)
    if config.header is None and is_image_name(config.path_column) and paths.exists(config.path_column):
        raise DataError(
            f"{table.name} line 1: names the image {shown(config.path_column)}, so the file has no line with the columns' names; "
            "add one, or name them in dataset.header"
        )
    cells = {
        name: LabelCells(group, table.cells(group.column)) for name, group in config.groups.items() if group.column
    }
    schema, class_where = _schema(config, table, cells)
    reader = _RowReader(config, schema, cells, paths, PathCheck(folder, problems), problems, table)
    for row in table.rows:
        reader.read(row)
    reader.raise_if_rows_disagree()
    images, notes = list(reader.images.values()), list[str]()
    if any(image.split is not None for image in images) and config.split_column is None:
        unlisted = sum(image.split is None for image in images)
        images = [image for image in images if image.split is not None]
        notes += [f"{unlisted:,} images are in no list of a split, and were left out."] if unlisted else []
    return ImageListing(schema, images, len(images), tuple(notes), class_where)


def _named(config: CsvSource, table: Table) -> Table:
    """Returns the table with the names of classes in place of their codes."""
    named = {group.column: group.names for group in config.groups.values() if group.column is not None and group.names}
    if not named:
        return table
    rows = [
        replace(row, cells=row.cells | {c: names.get(row.cells[c], row.cells[c]) for c, names in named.items()})
        for row in table.rows
    ]
    return Table(table.name, table.columns, rows)


def _named_columns(config: CsvSource) -> Iterator[tuple[str, str]]:
    yield "path_column", config.path_column
    if config.split_column is not None:
        yield "split_column", config.split_column
    if config.group_by is not None:
        yield "group_by", config.group_by
    for name, group in config.groups.items():
        if group.column is not None:
            yield f"groups.{name}.column", group.column
        for column in group.columns or ():
            yield f"groups.{name}.columns", column


def _with_the_study_s_spelling(config: CsvSource, table: Table) -> Table:
    """Returns the table, in which columns that the study names in another Unicode form have the study's form."""
    wanted = {spelling(column): column for _, column in _named_columns(config) if column not in table.columns}
    names = {column: wanted.get(spelling(column), column) for column in table.columns}
    if not wanted or len(set(names.values())) < len(names):
        return table
    rows = [replace(row, cells={names[column]: cell for column, cell in row.cells.items()}) for row in table.rows]
    return Table(table.name, tuple(names.values()), rows)


def _schema(config: CsvSource, table: Table, cells: dict[str, LabelCells]) -> tuple[LabelSchema, dict[str, str]]:
    groups, class_where = [], {}
    for name, group in config.groups.items():
        first_lines = {} if group.columns is not None else _first_lines(group, table, cells[name])
        classes = group.columns or group.classes or cells[name].found
        if len(classes) < (2 if group.kind == "one" else 1):
            raise DataError(
                f"{table.name}: the column {shown(group.column)} holds the classes {listed(classes)}; a group needs two"
            )
        groups.append(LabelGroup(name=name, kind=group.kind, classes=classes))
        for label in classes:
            line = f" line {first_lines[label]}" if label in first_lines else " line 1" if group.columns else ""
            class_where[f"{name}/{label}"] = f"{table.name}{line}"
    return LabelSchema(groups=tuple(groups)), class_where


def _first_lines(group: CsvGroup, table: Table, cells: LabelCells) -> dict[str, int]:
    """Maps each class to the line on which it is named first."""
    lines: dict[str, int] = {}
    for row in table.rows:
        for label in cells.read(row.cells[group.column or ""]) or []:
            lines.setdefault(label, row.line)
    return lines


class _RowReader:
    """Turns rows into images; a row with something wrong is reported to `problems` and left out."""

    def __init__(
        self,
        config: CsvSource,
        schema: LabelSchema,
        cells: dict[str, LabelCells],
        paths: TablePaths,
        check: PathCheck,
        problems: Problems,
        table: Table,
    ) -> None:
        self.images: dict[str, SourceImage] = {}
        """Maps each image's path to the image, in the order of the rows."""
        self._config, self._schema, self._cells, self._problems = config, schema, cells, problems
        self._paths, self._check, self._table_name = paths, check, table.name
        added = {part.file: part.folder for part in config.more if part.on is None}
        self._folders = {config.file: config.file_folder, **added}
        flags = {column for group in config.groups.values() for column in group.columns or ()}
        self._zeros = any(TRUTH.get(row.cells[column].lower()) == 0 for row in table.rows for column in flags)
        self._group_splits: dict[str, tuple[SplitName, int]] = {}
        self._disagreeing: list[str] = []

    def read(self, row: Row) -> None:
        """Adds the row's image or labels. Of what is wrong with the row, the first is reported, so that a row counts once."""
        where = f"{row.file or self._table_name} line {row.line}"
        table_file, cell = row.file or self._config.file, row.cells[self._config.path_column]
        beside = PurePosixPath(table_file).parent.as_posix()
        listed_path = self._paths.listed(
            cell, where, self._problems, "" if beside == "." else beside, self._folders.get(table_file) or ""
        )
        found = self._check.find(listed_path, where) if listed_path is not None else None
        if found is None:
            return
        name, file = found
        first = self.images.get(name)
        if self._config.rows == "image" and (message := self._check.repeated(name, cell, where)):
            labels = self._labels(row)
            if first is not None and isinstance(labels, np.ndarray) and not np.array_equal(labels, first.labels):
                message = f"the image {shown(name)} has other labels than at {first.where}; {ROW_PER_LABEL}, or keep one row per image"
                if self._config.on_bad == "skip":  # the second labels would be lost
                    self._disagreeing.append(f"{where}: {message}")
            self._problems.add("duplicate path", where, message)
            return
        labels = self._labels(row)
        if isinstance(labels, str):
            self._problems.add("label outside its group", where, labels)
            return
        # an image without a product or patient is a group of its own
        unit = row.cells[self._config.group_by] if self._config.group_by is not None else ""
        unit_or_none = None if is_missing(unit) else unit
        split: SplitName | None = None
        if self._config.split_column is not None:
            split = self._split(row.cells[self._config.split_column], where)
            if split is None or (
                unit_or_none is not None and not self._same_split(unit_or_none, split, row.line, where)
            ):
                return
        elif row.cells.get(FILE_SPLIT):
            split = split_of(row.cells[FILE_SPLIT])
        image = SourceImage(name, where, file, labels, split, unit_or_none)
        self.images[name] = image if first is None else self._united(first, image)

    def raise_if_rows_disagree(self) -> None:
        """Raises DataError if rows of the same image have other labels, of which one would be lost, or other splits or groups."""
        if self._disagreeing:
            raise DataError(f"{self._disagreeing[0]} ({len(self._disagreeing)} such rows in all)")

    def _united(self, first: SourceImage, second: SourceImage) -> SourceImage:
        """Returns the image with the labels of both: a class that one of them has, the image has."""
        for group, columns in self._schema.slices().items():
            a, b = first.labels[columns], second.labels[columns]
            known = (a >= 0).any() and (b >= 0).any()
            if self._schema.group(group).kind == "one" and known and not np.array_equal(a, b):
                self._disagreeing.append(
                    f"{second.where}: the image {shown(second.path)} has another class of the group {group} than at {first.where}; let the rows "
                    "agree, or set `kind: any` for the group"
                )
        if (first.split, first.group) != (second.split, second.group):
            self._disagreeing.append(
                f"{second.where}: the image {shown(second.path)} has another split or {self._config.group_by or 'group'} than at {first.where}; "
                "let the rows agree"
            )
        return replace(first, labels=np.maximum(first.labels, second.labels))

    def _split(self, text: str, where: str) -> SplitName | None:
        if (split := self._config.split_values.get(text) or split_of(text)) is not None:
            return split
        if self._config.split_column == self._config.path_column and (split := split_in_path(text)) is not None:
            return split
        self._problems.add(
            "unknown split", where, f"{self._config.split_column} must be train, val or test, got {text[:40]!r}"
        )
        return None

    def _same_split(self, group: str, split: SplitName, line: int, where: str) -> bool:
        first, first_line = self._group_splits.setdefault(group, (split, line))
        if first == split:
            return True
        message = f"{self._config.group_by} {group!r} is in {split} here and in {first} at line {first_line}"
        self._problems.add("group in two splits", where, message)
        return False

    def _labels(self, row: Row) -> Labels | str:
        """Returns the labels of the row, `[C]`, or what is wrong with them."""
        parts = []
        for name, group in self._config.groups.items():
            part = self._flags(name, group, row) if group.columns is not None else self._classes(name, group, row)
            if isinstance(part, str):
                return part
            parts.append(part)
        return np.concatenate(parts)

    def _flags(self, name: str, group: CsvGroup, row: Row) -> Labels | str:
        labels = np.full(len(self._schema.group(name).classes), -1, np.int8)
        for position, column in enumerate(group.columns or ()):
            cell = row.cells[column]
            truth = -1 if is_missing(cell) else TRUTH.get(cell.lower())
            if cell in NOT:
                truth = -1 if self._zeros else 0
            if truth is None:
                return f"{shown(column)} must be 0, 1 or blank, got {cell[:40]!r}"
            labels[position] = truth
        carried = int((labels == 1).sum())
        if group.kind == "one" and carried > 1:
            return (
                f"one of {listed(group.columns or ())} must be 1, got {carried}; set `kind: any` for the group {name}"
            )
        return labels if group.kind == "any" or carried else np.full(len(labels), -1, np.int8)

    def _classes(self, name: str, group: CsvGroup, row: Row) -> Labels | str:
        classes = self._schema.group(name).classes
        found = self._cells[name].read(row.cells[group.column or ""])
        if found is None:
            return np.full(len(classes), -1, np.int8)
        labels = np.zeros(len(classes), np.int8)
        for label in found:
            if label not in classes:
                return f"{group.column} must be one of {listed(classes)}, got {label[:40]!r}"
            if "\0" in label:
                return f"{group.column} holds a null character, got {label[:40]!r}"
            labels[classes.index(label)] = 1
        return labels
