"""Finds the files of text beside images that hold labels or splits, for `tailfill init`: tables, and lists without a header."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from shared.config.dataset import Delimiter, SplitName
from shared.data.problems import Problems
from shared.data.sources.csv_file import Table, find_delimiter, first_row, read_table
from shared.data.sources.infer_labels import LABELS, words_of
from shared.data.sources.infer_paths import PathColumn, find_path_column
from shared.data.sources.members import is_image_name, left_behind, member_names
from shared.data.sources.split_words import rest_of_name, split_of_file
from shared.data.sources.table_paths import TablePaths
from shared.errors import DataError

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
DEPTH = 4  # folders in which a file of labels may lie
MOST_SHEETS = 80
MOST_BYTES = 1 << 28
MOST_COLUMNS = 300  # tables with more hold pixels or features
SAMPLE = 100  # lines that say how a file is written
NAMES = frozenset({
    "id", "image", "img", "image_id", "img_id", "image_name", "file", "file_name", "filename", "path", "image_path", "file_path", "name",
})  # fmt: skip
"""Names columns of images, in lower case, in lists whose first line names the columns."""
_NUMBER = re.compile(r"-?[0-9.]+")
NO_LABELS = frozenset({"readme", "license", "licence", "submission", "requirements", "changelog", "agreement"})
"""Lists words in the names of files that hold no labels."""


@dataclass(frozen=True)
class Sheet:
    """Holds a file of text with a row per image, per label or per class."""

    file: str
    """Gives its path, relative to the root."""
    delimiter: Delimiter
    header: tuple[str, ...] | None
    """Names its columns, if its first row does not."""
    skip_lines: int
    table: Table
    path: PathColumn | None = None
    """Says which column names images; None if none does."""

    @property
    def stem(self) -> str:
        """Returns its name without the ending."""
        return PurePosixPath(self.file).stem

    @property
    def split(self) -> SplitName | None:
        """Returns the split that its name says, or its folder, as `train/_classes.csv` does."""
        return split_of_file(self.stem) or split_of_file(PurePosixPath(self.file).parent.name)

    @property
    def kind(self) -> tuple[str, tuple[str, ...]]:
        """Returns what files of one form have in common: the words of the name without a split's, and the columns."""
        return rest_of_name(self.stem)[0], tuple(filter(None, self.table.columns))

    @property
    def fold(self) -> int:
        """Returns the number in its name, 0 if it has none."""
        return rest_of_name(self.stem)[1]

    @property
    def unnamed(self) -> bool:
        """Returns whether its columns have no names of their own."""
        return unnamed(self.header)

    @property
    def others(self) -> list[str]:
        """Lists its columns but that of the images."""
        return [column for column in self.table.columns if column and (self.path is None or column != self.path.column)]


def unnamed(header: Sequence[str] | None) -> bool:
    """Returns whether names of columns are those that columns get if their file names none."""
    return header is not None and all(re.fullmatch(r"column_\d+|path|label", name) for name in header)


def read_sheets(root: Path) -> list[Sheet]:
    """Returns the files of labels below a folder, those in it first; what cannot be read as a table is left out."""
    names = TablePaths(root, lookup="name")
    sheets = []
    for path in _files(root):
        try:
            sheet = _with_ids(root, path, _read(root, path), names)
        except DataError:  # whoever is told to read this file says what is wrong with it
            continue
        if sheet is not None:
            sheets.append(sheet)
    return sheets


def with_paths(root: Path, sheet: Sheet, names: TablePaths) -> Sheet:
    """Returns the sheet with what names its images; without that if nothing does."""
    try:
        beside = PurePosixPath(sheet.file).parent.as_posix()
        path = find_path_column(root, sheet.table, names=names, split=sheet.split, beside=beside)
        return replace(sheet, path=path)
    except DataError:
        return sheet


def _files(root: Path) -> Iterator[Path]:
    found: list[tuple[int, str]] = []
    for parent, folders, names in os.walk(root):
        depth = len(Path(parent).relative_to(root).parts)
        folders[:] = [name for name in folders if not left_behind(name)] if depth < DEPTH - 1 else []
        beside_images = any(map(is_image_name, names))
        for name in names:
            suffix, words = Path(name).suffix.lower(), set(re.split(r"[\W_]+", Path(name).stem.lower()))
            is_text = suffix in TABLE_SUFFIXES or (suffix == ".txt" and not (beside_images and depth))
            path = os.path.join(parent, name)
            if is_text and not words & NO_LABELS and "submission" not in name.lower() and os.path.isfile(path):
                found.append((depth, path))
    kept = {name for folder in {Path(path).parent for _, path in found} for name in map(str, _members(folder))}
    yield from (
        Path(path) for _, path in sorted(found)[:MOST_SHEETS] if path in kept and os.path.getsize(path) <= MOST_BYTES
    )


def _members(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in member_names(folder)]
    except DataError:
        return []


def numbered_columns(count: int) -> tuple[str, ...]:
    """Returns the names of so many columns that have none of their own."""
    return tuple(f"column_{number}" for number in range(1, count + 1))


def _with_ids(root: Path, path: Path, sheet: Sheet | None, names: TablePaths) -> Sheet | None:
    """Returns the sheet with what names its images, without a header if the first row holds the id of one; None if it has no rows or too many columns."""
    if sheet is None or not (0 < len(sheet.table.columns) <= MOST_COLUMNS and sheet.table.rows):
        return None
    found = with_paths(root, sheet, names)
    if found.header is not None or found.path is None or not found.path.names_image(root):
        return found
    header = numbered_columns(len(sheet.table.columns))
    table = read_table(path, Problems("skip"), sheet.delimiter, header)
    return with_paths(root, replace(sheet, header=header, table=table), names)


def _read(root: Path, path: Path) -> Sheet | None:
    file = path.relative_to(root).as_posix()
    if path.suffix.lower() == ".txt":
        return _text(path, file)
    delimiter = find_delimiter(path)
    first = first_row(path, delimiter)
    if len(first) > MOST_COLUMNS:
        return None
    header = numbered_columns(len(first)) if any(map(is_image_name, first)) else None
    table = read_table(path, Problems("skip"), delimiter, header)
    return Sheet(file, delimiter, header, 0, table)


def _text(path: Path, file: str) -> Sheet | None:
    """Returns a list whose columns are separated by tabs, commas or blanks, without a header, or with the header that CelebA's have."""
    lines = _first_lines(path)
    skip = next((n for n, line in enumerate(lines) if line and not line.startswith("#")), len(lines))
    rows = [line for line in lines[skip:] if line]
    if not rows:
        return None
    delimiter = _delimiter(rows)
    cells = [line.split(None if delimiter == " " else delimiter) for line in rows]
    header: tuple[str, ...] | None = None
    if len(cells) > 2 and len(cells[0]) == 1 and cells[0][0].isdecimal() and len(cells[-1]) > 1:  # a count
        skip, cells = skip + 1, cells[1:]
    widths = Counter(map(len, cells))
    width = max(widths, key=widths.__getitem__)
    names = _names(cells[0], width, cells[1:])
    if names is None and len(widths) > 1 and delimiter == " ":  # the last column has names with blanks
        width = max(1, min(2, max(widths)))
        names = _names(cells[0], width, [[row[0], " ".join(row[1:])] for row in cells[1:] if len(row) > 1])
    if names is not None:
        header = names
        skip += 1
    if header is None:
        header = numbered_columns(width)
    if len(set(header)) < len(header) or len(header) > MOST_COLUMNS:
        return None
    return Sheet(file, delimiter, header, skip, read_table(path, Problems("skip"), delimiter, header, skip))


def _first_lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return [
                line.strip() for _, line in zip(range(SAMPLE), iter(lambda: file.readline(1 << 16), ""), strict=False)
            ]
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path.name}: cannot be read ({error}); save it as UTF-8") from error


def _delimiter(rows: list[str]) -> Delimiter:
    if all(is_image_name(row.partition(" ")[0]) and " " in row for row in rows):  # names may have commas
        return " "
    signs: tuple[Delimiter, ...] = ("\t", ",")
    for sign in signs:
        if len({row.count(sign) for row in rows}) == 1 and sign in rows[0]:
            return sign
    return " "


def _names(cells: list[str], width: int, rows: list[list[str]]) -> tuple[str, ...] | None:
    """Returns the names of the columns if the first line has them, else None; CelebA leaves out that of the images.

    None of them is a number or an image, and they say what they are, or all cells below one of them are numbers or images.
    """
    names = tuple(cell.strip() for cell in cells)
    if width < 2 or not rows or any(is_image_name(name) or _NUMBER.fullmatch(name) or not name for name in names):
        return None
    rows = [[cell.strip() for cell in row] for row in rows if len(row) == width]
    images = [all(map(is_image_name, column)) for column in zip(*rows, strict=True)]
    if len(names) == width - 1:
        return ("image", *names) if images and images[0] else None
    numbers = [all(map(_NUMBER.fullmatch, column)) for column in zip(*rows, strict=True)]
    said = [words_of(name) in NAMES for name in names]
    labels = [words_of(name) in LABELS for name in names]
    if len(names) != width or not (any(images) or any(numbers) or (any(said) and any(labels))):
        return None
    return names
