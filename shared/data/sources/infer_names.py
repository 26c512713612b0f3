"""Finds the names of classes that a table gives as numbers or codes, for `tailfill init`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from shared.data.sources.csv_file import Table
from shared.data.sources.folder_names import CODE, LETTER, find_names


def class_names(root: Path, file: Path, table: Table, path_column: str, column: str) -> dict[str, str]:
    """Returns the names of the classes in a column of codes; nothing if its cells are no codes, or if nothing names them all.

    A file beside the table names them, or the folders of their images, or what the names of their images begin with.
    """
    codes = sorted(set(table.cells(column)) - {""})
    if not codes or not all(CODE.fullmatch(code) for code in codes):
        return {}
    for folder in dict.fromkeys([(root / file).parent, root]):
        found = find_names(folder, codes)
        if found is not None and len(found[1]) == len(codes):
            return found[1]
    paths: dict[str, list[str]] = {code: [] for code in codes}
    for row in table.rows:
        if row.cells[column]:
            paths[row.cells[column]].append(row.cells[path_column].replace("\\", "/"))
    return _common(paths, lambda path: PurePosixPath(path).parent.name) or _common(paths, _beginning)


def _common(paths: dict[str, list[str]], part: Callable[[str], str]) -> dict[str, str]:
    """Returns the part of their paths that the images of each class have alone; nothing if a class has none, or several."""
    owners: dict[str, set[str]] = {}
    for code, each in paths.items():
        for path in each:
            owners.setdefault(part(path), set()).add(code)
    own: dict[str, list[str]] = {}
    for name, codes in owners.items():
        if len(codes) == 1 and name:
            own.setdefault(next(iter(codes)), []).append(name)
    if own.keys() != paths.keys() or any(len(names) != 1 for names in own.values()):
        return {}
    names = {code: own[code][0] for code in paths}
    return names if all(map(LETTER.search, names.values())) else {}


def _beginning(path: str) -> str:
    return re.sub(r"[-_. ]*[0-9]+$", "", PurePosixPath(path).stem)
