"""Joins the files of a source of tables into one: more rows of the same form, or more columns of the same rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from shared.config.dataset import CsvFile, CsvSource
from shared.data.problems import Problems
from shared.data.sources.csv_file import Row, Table, listed, read_table
from shared.data.sources.members import is_image_name
from shared.errors import ConfigError, DataError
from shared.names import path_below, shown

FILE_SPLIT = "\0split"
"""Names the column with the split that the file of a row says; no column of a file is called so."""


def joined_table(config: CsvSource, root: Path, problems: Problems) -> Table:
    """Returns the rows of all files, with the columns of all of them; a cell that no file has is blank.

    Raises DataError if a file cannot be read or names a key twice, and ConfigError if it has not the column that joins it.
    """
    table = read_table(inside(root, config.file, "file"), problems, config.delimiter, config.header, config.skip_lines)
    splits = config.file_split is not None or any(part.split is not None for part in config.more)
    if not config.more and not splits:
        return table
    extra = {FILE_SPLIT: config.file_split or ""} if splits else {}
    rows = [replace(row, cells=row.cells | extra, file=config.file) for row in table.rows]
    columns = [*table.columns, *extra]
    for number, part in enumerate(config.more):
        setting = f"more.{number}"
        other = read_table(
            inside(root, part.file, f"{setting}.file"), problems, part.delimiter, part.header, part.skip_lines
        )
        if part.on is None:
            if missing := [column for column in table.columns if column and column not in other.columns]:
                raise ConfigError(
                    f"dataset.{setting}: {part.file} has no column {shown(missing[0])}, as {config.file} has; it has {listed(other.columns)}"
                )
            blank = dict.fromkeys(columns, "")
            said = {FILE_SPLIT: part.split or ""} if splits else {}
            rows += [replace(row, cells=blank | _of(row, columns) | said, file=part.file) for row in other.rows]
        else:
            rows = _joined(rows, part, part.on, other, columns, config, setting)
    return Table(table.name, tuple(columns), rows)


def _of(row: Row, columns: list[str]) -> dict[str, str]:
    return {column: cell for column, cell in row.cells.items() if column in columns}


def _joined(
    rows: list[Row], part: CsvFile, on: str, other: Table, columns: list[str], config: CsvSource, setting: str
) -> list[Row]:
    key = part.key or on
    for name, column, there in (("key", key, other.columns), ("on", on, tuple(columns))):
        if column not in there:
            raise ConfigError(f"dataset.{setting}.{name}: there is no column {shown(column)} among {listed(there)}")
    images = on == config.path_column
    added = [column for column in other.columns if column != key]
    columns += [column for column in added if column not in columns]
    found: dict[str, Row] = {}
    for row in other.rows:
        value = _key(row.cells[key], images)
        if value in found and found[value].cells != row.cells:
            raise DataError(
                f"{part.file} line {row.line}: {shown(row.cells[key])} has other cells than on line {found[value].line}; keep one"
            )
        found[value] = row
    joined = []
    for row in rows:
        match = found.get(_key(row.cells[on], images))
        cells = dict.fromkeys(added, "") | row.cells
        if match is not None:
            cells |= {column: match.cells[column] for column in added if not cells[column]}
            cells |= {FILE_SPLIT: part.split} if part.split is not None else {}
        joined.append(replace(row, cells=cells))
    return joined


def _key(cell: str, images: bool) -> str:
    """Returns what is compared: an image by its name alone, as one file may have its folder or its ending and another not."""
    if not images:
        return cell
    name = PurePosixPath(cell.replace("\\", "/")).name
    return PurePosixPath(name).stem if is_image_name(name) else name


def inside(root: Path, text: str, setting: str) -> Path:
    """Returns a path inside the root that a setting names; raises ConfigError if it leaves it."""
    try:
        path = (root / text).resolve()
    except (OSError, ValueError) as error:
        raise ConfigError(f"dataset.{setting}: cannot be used ({error}), got {text!r}") from error
    if not path.is_relative_to(root):
        raise ConfigError(f"dataset.{setting}: must lie inside dataset.root, got {text!r}; copy it there")
    return (
        path if path == root else path_below(root, path.relative_to(root).as_posix(), f"dataset.{setting}", ConfigError)
    )
