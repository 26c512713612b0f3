"""Lists the images that a command names: image files, folders, and CSV files with a column of paths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shared.data.canonical import Reading, check_header
from shared.data.problems import BadImage, Problems
from shared.data.sources.csv_file import Table, find_delimiter, first_row, read_table
from shared.data.sources.infer_paths import PathColumn, find_path_column
from shared.data.sources.members import IMAGE_SUFFIXES, images_below, is_image_name
from shared.data.sources.paths import PathCheck, what_exists
from shared.data.sources.sheets import TABLE_SUFFIXES
from shared.data.sources.table_paths import is_absolute, is_url
from shared.deploy.description import MOST_PIXELS
from shared.errors import ConfigError, DataError
from shared.names import shown
from shared.terminal import shortened

LONGEST_NAME = 300  # characters of a path in a message
SPREADSHEET_SUFFIXES = frozenset({".xlsx", ".xlsm", ".xls", ".ods", ".numbers"})
ANY_SIZE = Reading(most_pixels=MOST_PIXELS)
"""Bounds the pixels of an image whose header is read before the limit of its model is known."""


@dataclass(frozen=True)
class ListedImage:
    """Holds an image that is to be labelled."""

    name: str
    """Names it as the command or the CSV does."""
    path: Path
    fault: str | None = None
    """Says why it cannot even be looked for, or None."""


def list_images(arguments: Sequence[Path]) -> list[ListedImage]:
    """Returns the images of all arguments, in order: a file itself, of a folder all images below it by name, of a CSV one per row.

    A CSV names them as that of a data set does (`find_path_column`), and they lie below its folder. A file that is missing, or that is no image,
    is listed, and found to be so when it is read, if another one is an image. Raises ConfigError if an argument holds no image or no file is
    one, and DataError if a folder or a CSV cannot be read.
    """
    found = [image for argument in arguments for image in _of(argument)]
    with ANY_SIZE.limiting():
        why = _fault(found[0])
        if why is not None and all(map(_fault, found[1:])):  # the headers are read up to the first image
            others = f", and no other of the {len(found)} is an image" if len(found) > 1 else ""
            name = shortened(repr(found[0].name), LONGEST_NAME)
            raise ConfigError(f"{name}: {why}{others}; name image files, a folder or a CSV")
    return found


def _fault(image: ListedImage) -> str | None:
    """Returns what an image's name and its header show to be wrong with it, or None."""
    if image.fault is not None:
        return image.fault
    if not _exists(image.path):
        return f"does not exist{what_exists(image.path.absolute())}"
    try:
        check_header(image.path, ANY_SIZE)
    except BadImage as error:
        return f"{error.reason}: {error}"
    return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # its folder may not be read, or that is no name of a file
        return False


def _of(argument: Path) -> Iterator[ListedImage]:
    if is_url(str(argument).replace(":/", "://")):  # a Path has one slash in place of two
        yield ListedImage(str(argument), argument, "is a URL; save the image, and name its file")
    elif _exists(argument) and argument.is_dir():
        yield from _below(argument)
    elif argument.suffix.lower() in SPREADSHEET_SUFFIXES:
        yield ListedImage(str(argument), argument, "is a spreadsheet; save it as a CSV, and name that")
    elif argument.suffix.lower() in TABLE_SUFFIXES:
        yield from _rows(argument)
    else:
        yield ListedImage(str(argument), argument)


def _below(folder: Path) -> Iterator[ListedImage]:
    def fail(error: OSError) -> None:
        raise DataError(f"{shown(error.filename)}: cannot be listed ({error.strerror}); make it readable") from error

    paths = sorted(images_below(folder, fail))
    if not paths:
        raise ConfigError(
            f"{shown(folder)}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); name image files, a folder or a CSV"
        )
    for path in paths:
        yield ListedImage(str(path), path)


class _Faults(Problems):
    """Keeps what is wrong with each row, for the answer to that row."""

    def __init__(self) -> None:
        super().__init__("skip")
        self.of: dict[str, str] = {}
        """Maps file and line to what is wrong there."""

    def add(self, reason: str, where: str, message: str) -> None:
        """Keeps a problem."""
        self.of[where] = f"{reason}: {message}"


def _rows(file: Path) -> Iterator[ListedImage]:
    faults = _Faults()
    root = file.parent.resolve()
    table, column = _table(file, root, faults)
    paths, check = column.paths(root), PathCheck(root / column.image_folder, faults)
    rows = {f"{file.name} line {row.line}": row.cells[column.column] for row in table.rows}
    for where in sorted({*rows, *faults.of}, key=lambda where: int(where.rpartition(" ")[2])):
        cell = rows.get(where)
        if cell is None:  # the row has more or fewer cells than it should have
            yield ListedImage(where, file, faults.of[where])
            continue
        if is_absolute(cell.replace("\\", "/").removeprefix(column.prefix)):
            faults.add("absolute path", where, f"{shown(cell)} must be relative to the folder of {file.name}")
        elif (listed := paths.listed(cell, where, faults)) is not None and (found := check.find(listed, where)):
            yield ListedImage(cell, found[1])
            continue
        yield ListedImage(cell, file, f"{faults.of[where]} ({where})")


def _table(file: Path, root: Path, faults: Problems) -> tuple[Table, PathColumn]:
    """Returns a CSV, whose first row may be an image already, and the column with its images.

    Raises DataError if it cannot be read, has no rows or names no image that exists.
    """
    delimiter = find_delimiter(file)
    first = first_row(file, delimiter)
    names = [f"column_{number}" for number in range(1, len(first) + 1)] if any(map(is_image_name, first)) else None
    table = read_table(file, faults, delimiter, names)
    if not table.rows:
        raise DataError(f"{file.name}: has no rows; there must be one per image")
    paths = tuple(c for c in table.columns if 2 * sum(map(is_image_name, table.cells(c))) >= len(table.rows))
    # a column of numbers may name other images by chance, such as 1 for b/1.jpg
    return table, find_path_column(root, replace(table, columns=paths or table.columns), least=0.0)
