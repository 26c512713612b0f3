"""Reads a CSV with a row per image: a path column, label columns, optionally the split and a column of what must stay together."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.config.dataset import CsvGroup, CsvSource
from shared.data.problems import Problems
from shared.data.schema import LabelGroup, Labels, LabelSchema
from shared.data.source import ImageListing, SourceImage, SplitName
from shared.data.sources.paths import PathCheck, existing_root
from shared.data.sources.split_words import split_of
from shared.errors import ConfigError, DataError
from shared.names import path_below

TRUTH = {"1": 1, "1.0": 1, "true": 1, "0": 0, "0.0": 0, "false": 0, "": -1}
"""Maps what a 0/1 cell may hold to its label (pandas writes 1.0 if a column has blanks); blank is unknown."""


@dataclass(frozen=True)
class Row:
    """Holds a row of the table."""

    line: int
    """Gives the line of the file on which the row begins, from 1."""
    cells: dict[str, str]
    """Maps each column to its text, without blanks around it."""


@dataclass(frozen=True)
class Table:
    """Holds all rows of a CSV."""

    name: str
    columns: tuple[str, ...]
    rows: list[Row]


def read_csv(config: CsvSource, root: Path, problems: Problems) -> ImageListing:
    """Lists the images that the rows of the table name.

    Raises DataError if the table cannot be read, ConfigError if it lacks a column that the study names.
    """
    root = existing_root(root)
    paths = PathCheck(_inside(root, config.image_folder, "image_folder"), problems)
    table = read_table(_inside(root, config.file, "file"), problems, config.delimiter)
    for setting, column in _named_columns(config):
        if column not in table.columns:
            raise ConfigError(f"dataset.{setting}: {table.name} has no column {column!r}; it has {list(table.columns)}")
    schema, class_where = _schema(config, table)
    reader = _RowReader(config, schema, paths, problems, table.name)
    images = [image for row in table.rows if (image := reader.read(row)) is not None]
    return ImageListing(schema, images, len(images), class_where=class_where)


def read_table(path: Path, problems: Problems, delimiter: str = ",") -> Table:
    """Reads a CSV whose first row names its columns; rows with more or fewer cells are reported to `problems`.

    Raises DataError if the file is missing, empty or not text, or names a column twice.
    """
    name = path.name
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = _numbered(csv.reader(file, delimiter=delimiter, strict=True))
            header = tuple(cell.strip() for cell in next(lines, (0, []))[1])
            if not header:
                raise DataError(f"{name}: is empty; its first row must name the columns")
            if twice := [column for column in header if header.count(column) > 1]:
                raise DataError(f"{name} line 1: the column {twice[0]!r} is named twice; rename one")
            for line, cells in lines:
                if len(cells) != len(header):
                    message = f"must have {len(header)} cells as the first row has, got {len(cells)}"
                    problems.add("wrong number of cells", f"{name} line {line}", message)
                    continue
                rows.append(Row(line, {c: cell.strip() for c, cell in zip(header, cells, strict=True)}))
    except FileNotFoundError:
        raise DataError(f"{path}: not found; dataset.file names the CSV inside dataset.root") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from error
    return Table(name, header, rows)


def _numbered(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Yields records that are not blank, each with the line on which it begins (a quoted cell may span several)."""
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f"the CSV, near line {line}: cannot be read ({error}); fix the quotes there") from error
        if cells:
            yield line, cells
        line = reader.line_num + 1  # type: ignore[attr-defined]


def _inside(root: Path, text: str, setting: str) -> Path:
    try:
        path = (root / text).resolve()
    except (OSError, ValueError) as error:
        raise ConfigError(f"dataset.{setting}: cannot be used ({error}), got {text!r}") from error
    if not path.is_relative_to(root):
        raise ConfigError(f"dataset.{setting}: must lie inside dataset.root, got {text!r}; copy it there")
    return (
        path if path == root else path_below(root, path.relative_to(root).as_posix(), f"dataset.{setting}", ConfigError)
    )


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


def _schema(config: CsvSource, table: Table) -> tuple[LabelSchema, dict[str, str]]:
    groups, class_where = [], {}
    for name, group in config.groups.items():
        first_lines = {} if group.columns is not None else _first_lines(group, table)
        classes = group.columns or group.classes or tuple(sorted(first_lines))
        if len(classes) < (2 if group.kind == "one" else 1):
            raise DataError(
                f"{table.name}: the column {group.column!r} holds the classes {list(classes)}; a group needs two"
            )
        groups.append(LabelGroup(name=name, kind=group.kind, classes=classes))
        for label in classes:
            line = f" line {first_lines[label]}" if label in first_lines else " line 1" if group.columns else ""
            class_where[f"{name}/{label}"] = f"{table.name}{line}"
    return LabelSchema(groups=tuple(groups)), class_where


def _first_lines(group: CsvGroup, table: Table) -> dict[str, int]:
    """Maps each class to the line on which it is named first."""
    lines: dict[str, int] = {}
    for row in table.rows:
        for label in _names(group, row.cells[group.column or ""]):
            lines.setdefault(label, row.line)
    return lines


def _names(group: CsvGroup, cell: str) -> list[str]:
    """Returns the class names in a cell: one, or those of a list."""
    if group.kind == "one":
        return [cell] if cell else []
    return [name.strip() for name in cell.split(group.separator) if name.strip()]


class _RowReader:
    """Turns rows into images; a row with something wrong is reported to `problems` and left out."""

    def __init__(
        self, config: CsvSource, schema: LabelSchema, paths: PathCheck, problems: Problems, table_name: str
    ) -> None:
        self._config, self._schema, self._paths, self._problems = config, schema, paths, problems
        self._table_name = table_name
        self._group_splits: dict[str, tuple[SplitName, int]] = {}

    def read(self, row: Row) -> SourceImage | None:
        """Returns the row's image; None if something is wrong with it, of which the first is reported, so that a row counts once."""
        where = f"{self._table_name} line {row.line}"
        checked = self._paths.check(row.cells[self._config.path_column], where)
        if checked is None:
            return None
        parts = []
        for name, group in self._config.groups.items():
            part = self._labels(name, group, row, where)
            if part is None:
                return None
            parts.append(part)
        # an image without a product or patient is a group of its own
        unit = (row.cells[self._config.group_by] or None) if self._config.group_by is not None else None
        split: SplitName | None = None
        if self._config.split_column is not None:
            split = self._split(row.cells[self._config.split_column], where)
            if split is None or (unit is not None and not self._same_split(unit, split, row.line, where)):
                return None
        return SourceImage(checked[0], where, checked[1], np.concatenate(parts), split, unit)

    def _split(self, text: str, where: str) -> SplitName | None:
        if (split := split_of(text)) is not None:
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

    def _labels(self, name: str, group: CsvGroup, row: Row, where: str) -> Labels | None:
        classes = self._schema.group(name).classes
        labels = np.full(len(classes), -1, np.int8)
        if group.columns is not None:
            for position, column in enumerate(group.columns):
                cell = row.cells[column].lower()
                if cell not in TRUTH:
                    self._outside(where, f"{column} must be 0, 1 or blank, got {cell[:40]!r}")
                    return None
                labels[position] = TRUTH[cell]
            return labels
        cell = row.cells[group.column or ""]
        if cell:
            labels[:] = 0
        for label in _names(group, cell):
            if label not in classes:
                self._outside(where, f"{group.column} must be one of {list(classes)}, got {label[:40]!r}")
                return None
            labels[classes.index(label)] = 1
        return labels

    def _outside(self, where: str, message: str) -> None:
        self._problems.add("label outside its group", where, message)
