"""Infers which column of a table names the images, and how, for `tailfill init` and `tailfill predict`."""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from shared.config.dataset import SplitName
from shared.data.sources.csv_file import Table
from shared.data.sources.members import is_image_name, member_names
from shared.data.sources.paths import what_exists
from shared.data.sources.split_words import split_of
from shared.data.sources.table_paths import TablePaths, image_paths, is_absolute, is_url
from shared.errors import DataError
from shared.names import shown

CHECKED_ROWS = 500  # rows whose paths are tried
BESIDE_IMAGES = frozenset({"annotation", "annotations", "labels", "trimaps"})
"""Names folders, in lower case, whose images belong to others and are called as these."""
MOST_FOLDERS = 100  # folders of a folder from which paths may start
MOST_OUTER = 12  # folders of the root whose own folders are tried; more are classes
TRIED_PREFIXES = 20  # rows from which a prefix is read
LEAST_NAME = 4  # characters of a name to which a suffix is tried
LEAST_SHARE = 0.5  # of the rows of a data set, that name images


@dataclass(frozen=True)
class PathColumn:
    """Says how a column names the images."""

    column: str
    image_folder: str
    """Names the folder below the root from which the paths start."""
    prefix: str = ""
    """Holds the text before them that is left out."""
    lookup: Literal["path", "name"] = "path"
    suffix: str = ""
    """Holds the text that the files' names have behind those of the cells."""
    share: float = 0.0
    """Gives the share of the tried rows that name an image."""
    rival: str | None = None
    """Names another folder in which as many of the names are, if there is one."""

    def paths(self, root: Path) -> TablePaths:
        """Returns what finds the files of the column's cells."""
        return TablePaths(root / self.image_folder, self.prefix, self.lookup, self.suffix)


def find_path_column(
    root: Path,
    table: Table,
    least: float = LEAST_SHARE,
    names: TablePaths | None = None,
    split: SplitName | None = None,
    beside: str = ".",
) -> PathColumn:
    """Returns the column whose cells most often name images below the root.

    The cells may be paths from the root, from the table's folder `beside` or from a folder in the root, such paths after a prefix, or names of files
    without folders. If two folders hold them, the one that is named as the table's `split` is meant. `names` knows the images below the root. Raises DataError
    that says what is there instead if no column names images in the share `least` of the rows, or none at all, or if two folders hold them equally.
    """
    cells = {column: table.cells(column)[:CHECKED_ROWS] for column in table.columns}
    best = _plain(root, cells, split, beside)
    if best.share < 1:
        best = max(best, _after_a_prefix(root, cells), key=lambda found: found.share)  # of equal ones the first
    if best.share < 1:
        names = names or TablePaths(root, lookup="name")
        best = max(best, _by_name(names, cells, split), key=lambda found: found.share)
        if not best.share:
            best = _with_suffix(root, cells)
    if best.share < least or not best.share:
        raise DataError(f"{table.name}: no column names image files below {root} {_what_else(root, cells, best)}")
    if best.rival is not None:
        raise DataError(
            f"{table.name}: the names in {shown(best.column)} are images of the folder {shown(best.image_folder)} and of {shown(best.rival)}; write the "
            "folder into the table's paths, or move the folder that is not meant elsewhere"
        )
    return best


def _plain(root: Path, cells: dict[str, list[str]], split: SplitName | None, beside: str) -> PathColumn:
    folders = list(dict.fromkeys([beside, ".", *_inside(root, ""), *_inside(root, beside)]))
    best = PathColumn(next(iter(cells)), ".")
    candidates = [column for column in cells if any(map(is_image_name, cells[column]))]
    for column in candidates:
        for folder in folders:
            share = _share(TablePaths(root / folder), cells[column])
            if share > best.share:
                best = PathColumn(column, folder, share=share)
            elif share == best.share > 0 and column == best.column and best.rival is None:
                if split is not None and split_of(folder) == split:
                    best = PathColumn(column, folder, share=share)
                elif split is None or split_of(best.image_folder) != split:
                    best = replace(best, rival=folder)
    return best


def _inside(root: Path, folder: str) -> list[str]:
    """Returns the folders in a folder and in those, as paths from the root."""
    base = root / folder if folder else root
    names = [name for name in member_names(base) if (base / name).is_dir()]
    deeper = [
        f"{name}/{n}"
        for name in names[:MOST_FOLDERS]
        for n in member_names(base / name)[:MOST_FOLDERS]
        if (base / name / n).is_dir()
    ]
    deeper = deeper[:MOST_FOLDERS]
    return [
        name if folder in ("", ".") else f"{folder}/{name}"
        for name in (*names, *(deeper if len(names) < MOST_OUTER else []))
    ]


def _share(paths: TablePaths, cells: Sequence[str]) -> float:
    return sum(is_image_name(cell) and paths.exists(cell) for cell in cells) / len(cells)


def _after_a_prefix(root: Path, cells: dict[str, list[str]]) -> PathColumn:
    """Returns the column of paths that lie below the root after a common beginning, such as the folder on another machine."""
    best = PathColumn(next(iter(cells)), ".")
    for column, texts in cells.items():
        for text in list(dict.fromkeys(texts))[:TRIED_PREFIXES]:
            prefix = _prefix(root, text.replace("\\", "/"))
            if prefix is None:
                continue
            share = _share(TablePaths(root, prefix), texts)
            if share > best.share:
                best = PathColumn(column, ".", prefix, share=share)
    return best


def _prefix(root: Path, path: str) -> str | None:
    """Returns what comes before the part of the path that names an image below the root, None if no part does.

    If that part is the name of a file alone, the folder before it must be called as the root is: else another file may be meant.
    """
    parts = path.split("/")
    if not is_image_name(path) or is_url(path) or ".." in parts:
        return None
    for start in range(1, len(parts)):
        rest = "/".join(parts[start:])
        if (start < len(parts) - 1 or parts[start - 1] == root.name) and TablePaths(root).exists(rest):
            return path.removesuffix(rest)
    return None


def _by_name(paths: TablePaths, cells: dict[str, list[str]], split: SplitName | None) -> PathColumn:
    """Returns the column of names of files, with or without their ending; of several the one with the most different names."""
    best, most = PathColumn(next(iter(cells)), "."), 0
    for column, texts in cells.items():
        hits = [found for text in texts if text and (found := paths.named(text))]
        share, different = len(hits) / len(texts), len(set(texts))
        if hits and (share, different) > (best.share, most):
            whole = set.intersection(
                *({path.rpartition("/")[0].partition("/")[0] or "." for path in found} for found in hits)
            )
            named = sorted(name for name in whole if split is not None and split_of(name) == split)
            named = named or sorted(name for name in whole if name.lower() not in BESIDE_IMAGES)
            folder, rival = (*(named if len(named) == 1 else sorted(whole)), None, None)[:2]
            best = PathColumn(column, folder or ".", lookup="name", share=share, rival=rival)
            most = different
    return best


def _with_suffix(root: Path, cells: dict[str, list[str]]) -> PathColumn:
    """Returns the column of names to which the files' names add one suffix, such as `_aligned`."""
    stems = sorted({PurePosixPath(path).stem for path in image_paths(root)})
    known, best = set(stems), PathColumn(next(iter(cells)), ".")
    for column, texts in cells.items():
        names = [PurePosixPath(text).stem if is_image_name(text) else text for text in texts]
        for name in dict.fromkeys(name for name in names[:TRIED_PREFIXES] if len(name) >= LEAST_NAME):
            at = bisect_left(stems, name)
            for suffix in (stem.removeprefix(name) for stem in stems[at : at + 3] if stem.startswith(name)):
                share = sum(name + suffix in known for name in names) / len(names)
                if re.match(r"[-_. ][A-Za-z]", suffix) and share > best.share:
                    best = PathColumn(column, ".", lookup="name", suffix=suffix, share=share)
    return best


def _what_else(root: Path, cells: dict[str, list[str]], best: PathColumn) -> str:
    """Returns what the column that looks most like paths holds instead, and a remedy."""
    looks = {column: sum(is_image_name(text) or is_url(text) for text in texts) for column, texts in cells.items()}
    column = max(looks, key=looks.__getitem__) if any(looks.values()) else best.column
    texts = [text for text in cells[column] if text]
    text = next((text for text in texts if is_image_name(text) or is_url(text)), texts[0] if texts else "")
    path = text.replace("\\", "/")
    holds = f"(the best, {shown(column)}, does in {best.share:.0%} of the rows, and holds {shown(text)})"
    if is_url(text):
        return f"{holds}; these are URLs: save the images below that folder, and write their paths into the table"
    if ".." in PurePosixPath(path).parts:
        return (
            f"{holds}; these lead out of that folder: move the table to the folder from which they start, without `..`"
        )
    if is_absolute(path):
        return f"{holds}; these are absolute, and no part of them is there: move the images to the table's folder, or the table to theirs"
    there = next((what for folder in _folders(root) if (what := what_exists(folder / path))), "")
    if there:
        return f"{holds}{there}: write the paths as the files are named"
    if text.isdecimal() and (padded := _padded(root, text)) is not None:
        return f"{holds}; there is {shown(padded)}: write the numbers as the files are named (pandas: `dtype=str`)"
    return f"{holds}; paths must start from the table's folder or one in it"


def _folders(root: Path) -> list[Path]:
    return [root, *sorted(path for path in root.iterdir() if path.is_dir())]


def _padded(root: Path, number: str) -> str | None:
    """Returns an image whose name is the number with zeros before it."""
    for path in image_paths(root):
        stem = os.path.splitext(os.path.basename(path))[0]
        if stem.isdecimal() and stem != number and int(stem) == int(number):
            return path
    return None
