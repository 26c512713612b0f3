"""Lists the images that a command names: image files, folders, and CSV files with a column of paths."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shared.data.problems import Problems
from shared.data.sources.csv_table import read_table
from shared.data.sources.paths import IMAGE_SUFFIXES
from shared.errors import ConfigError, DataError
from shared.names import path_below

PATH_COLUMNS = ("path", "image", "file", "filename", "file_name")
"""Names the columns that may hold the paths of a CSV, the first of which that it has counts."""


@dataclass(frozen=True)
class ListedImage:
    """Holds an image that is to be judged."""

    name: str
    """Names it as the command or the CSV does."""
    path: Path
    fault: str | None = None
    """Says why it cannot even be looked for, or None."""


def list_images(arguments: Sequence[Path]) -> list[ListedImage]:
    """Returns the images of all arguments, in order: a file itself, of a folder all images below it by name, of a CSV a row each.

    A path in a CSV is relative to its folder and stays below it. A file that does not exist is listed, and found missing when it is read. Raises
    ConfigError if nothing is left, and DataError if a folder or a CSV cannot be read.
    """
    found = [image for argument in arguments for image in _of(argument)]
    if not found:
        names = ", ".join(map(str, arguments)) or "nothing"
        raise ConfigError(
            f"{names}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); name image files, a folder or a CSV"
        )
    return found


def _of(argument: Path) -> Iterator[ListedImage]:
    if argument.is_dir():
        yield from _below(argument)
    elif argument.suffix.lower() == ".csv":
        yield from _rows(argument)
    else:
        yield ListedImage(str(argument), argument)


def _below(folder: Path) -> Iterator[ListedImage]:
    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); fix its permissions") from error

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders.sort()  # in place, which is the order in which they are visited
        for file in sorted(files):
            path = Path(parent) / file
            if path.suffix.lower() in IMAGE_SUFFIXES:
                yield ListedImage(str(path), path)


def _rows(file: Path) -> Iterator[ListedImage]:
    problems = Problems("fail")
    table = read_table(file, problems)
    problems.raise_if_failing()
    column = next((name for name in PATH_COLUMNS if name in table.columns), None)
    if column is None and len(table.columns) == 1:
        column = table.columns[0]
    if column is None:
        raise DataError(
            f"{file.name}: has none of the columns {', '.join(PATH_COLUMNS)}; it has {list(table.columns)}: rename the one with the paths"
        )
    for row in table.rows:
        name = row.cells[column]
        try:
            yield ListedImage(
                name,
                path_below(
                    file.parent, str(PurePosixPath(name)) if name else "", f"{file.name} line {row.line}", DataError
                ),
            )
        except DataError as error:
            yield ListedImage(name, file.parent, str(error))
