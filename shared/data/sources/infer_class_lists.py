"""Infers which files beside class folders list these, or say the splits or the classes of images, for `tailfill init`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from shared.config.dataset import SplitName
from shared.data.sources.class_folders import SplitFolders, folder_split
from shared.data.sources.class_lists import NearImages, listed_name, table_cells
from shared.data.sources.members import images_below, member_names
from shared.data.sources.sheets import Sheet
from shared.data.sources.split_words import split_of_file, split_within
from shared.names import name_fault

LEAST_LISTED = 0.5  # of the images, that lists of splits must name


def class_paths(root: Path, top: Path) -> dict[str, str]:
    """Returns the class folders that a file lists by paths of several folders, with their names; nothing if there is no such file."""
    for place in dict.fromkeys([top, root]):
        for name in member_names(place):
            path = place / name
            if path.suffix.lower() != ".txt" or not path.is_file() or path.stat().st_size > 1 << 23:
                continue
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            keys = [_listed_folder(top, line) for line in lines if line.strip()]
            found = [key for key in keys if key is not None]
            if len(found) > 1 and len(found) == len(keys):
                names = {key: key.split("/", 1)[1] for key in found}
                return names if len(set(names.values())) == len(found) else {key: key for key in found}
    return {}


def _listed_folder(top: Path, line: str) -> str | None:
    """Returns the path of several folders that a line names, before the number of the class if it has one; None if there is no such folder."""
    for text in (line.strip(), re.sub(r"\s+[0-9]+\s*$", "", line.strip())):
        path = text.strip("/")
        if "/" in path and name_fault(path) is None and (top / path).is_dir():
            return path
    return None


def split_lists(root: Path, top: Path, sheets: Sequence[Sheet]) -> dict[SplitName, str]:
    """Returns the files that list the images of each split; of numbered ones the first. Nothing if they do not name most images."""
    known = {end for path in images_below(top) for end in _ends(path.relative_to(root).as_posix())}
    found: dict[SplitName, str] = {}
    named = 0
    for sheet in sorted(sheets, key=lambda sheet: (sheet.fold, len(sheet.table.rows))):
        split = split_of_file(sheet.stem)
        if len(sheet.table.columns) != 1 or sheet.header is None or split is None or split in found:
            continue
        lines = [row.cells[sheet.header[0]] for row in sheet.table.rows]
        listed = sum(listed_name(line) in known for line in lines)
        if listed > LEAST_LISTED * len(lines):
            found[split] = sheet.file
            named += listed
    images = sum(1 for _ in images_below(top))
    return found if "train" in found and len(found) > 1 and named >= LEAST_LISTED * images else {}


def _ends(path: str) -> Iterator[str]:
    parts = PurePosixPath(path).with_suffix("").parts
    yield from ("/".join(parts[at:]) for at in range(len(parts)))


def split_tables(root: Path, split: SplitFolders, classes: set[str], sheets: Sequence[Sheet]) -> dict[SplitName, str]:
    """Returns the files, in split folders without class folders or beside tables, that label the images there by the names of class folders."""
    found: dict[SplitName, str] = {}
    for folder in split.unlabelled:
        name = folder_split(folder)
        inside = [path for path in sorted(folder.glob("*.txt")) if path.is_file()]
        tables = [root / sheet.file for sheet in sheets if split_within(sheet.stem) == name]
        near = NearImages(folder) if tables else None
        for path in [*inside, *tables]:
            with path.open(encoding="utf-8", errors="replace") as file:
                rows = [table_cells(line) for line in file.readlines(1 << 16)]
            if near is not None and path in tables:  # it has a header, and may be about other images
                rows = rows[1:] if all(row and near.find(row[0]) is not None for row in rows[1:]) else []
            if name is not None and rows and all(len(row) > 1 and row[1] in classes for row in rows):
                found[name] = path.relative_to(root).as_posix()
    return found
