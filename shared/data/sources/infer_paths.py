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
from shared.data.sources.image_finder import said_split
from shared.data.sources.members import OF_MASK, is_image_name, subfolder_names
from shared.data.sources.paths import what_exists
from shared.data.sources.split_words import split_of
from shared.data.sources.table_paths import TablePaths, image_paths, is_absolute, is_url
from shared.errors import DataError
from shared.names import shown

CHECKED_ROWS = 500  # rows whose paths are tried
BESIDE_IMAGES = frozenset({"annotation", "annotations", "labels", "trimaps"})
"""Names folders, in lower case, whose images belong to others and are called as these."""
MOST_FOLDERS = 100  # folders of a folder from which paths may start
MOST_SHOWN = 4  # rivals in a message
MOST_OUTER = 12  # folders of the root whose own folders are tried; more are classes
TRIED_PREFIXES = 20  # rows from which a prefix is read
LEAST_NAME = 4  # characters of a name to which a suffix is tried
MOST_SUFFIXES = 9  # files whose names begin alike, that are looked at for their suffixes
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
    rivals: tuple[str, ...] = ()
    """Names other folders, or suffixes if there is one, with which as many of the cells name an image."""

    def names_image(self, root: Path) -> bool:
        """Returns whether the column's name is the id of an image, so that the table has no header; a file may be called as a header is, such as `image`."""
        is_id = self.lookup == "name" and any(map(str.isdigit, self.column))
        return is_id and self.paths(root).exists(self.column)

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
    without folders. If two folders hold them, the one is meant whose path says the table's `split`, by the innermost part that says one. `names` knows
    the images below the root. Raises DataError that says what is there instead if no column names images in the share `least` of the rows, or none at
    all, or if two folders hold them equally.
    """
    cells = {column: table.cells(column)[:CHECKED_ROWS] for column in table.columns}
    best = _plain(root, cells, split, beside)
    if best.share < 1:
        best = max(best, _after_a_prefix(root, cells), key=lambda found: found.share)  # of equal ones the first
    if best.share < 1:
        names = names or TablePaths(root, lookup="name")
        best = max(best, _by_name(names, cells, split), key=lambda found: found.share)
        if not best.share:
            best = _by_last_part(names, cells, split)
        if not best.share:
            best = _with_suffix(root, cells)
    if best.share < least or not best.share:
        raise DataError(f"{table.name}: no column names image files below {root} {_what_else(root, cells, best)}")
    _check_rivals(table, best)
    return best


def _check_rivals(table: Table, best: PathColumn) -> None:
    """Raises DataError if the cells of a column name images in several folders, or with several suffixes, equally well."""
    if not best.rivals:
        return
    others = ", ".join(map(shown, best.rivals[:MOST_SHOWN]))
    if best.suffix:
        raise DataError(
            f"{table.name}: the names in {shown(best.column)} are those of images that end in {shown(best.suffix)} and of others in {others}; write the "
            "images' whole names into the table, or move the images that are not meant elsewhere"
        )
    raise DataError(
        f"{table.name}: the names in {shown(best.column)} are images of the folder {shown(best.image_folder)} and of {others}; write the "
        "folder into the table's paths, or move the folder that is not meant elsewhere"
    )


def _plain(root: Path, cells: dict[str, list[str]], split: SplitName | None, beside: str) -> PathColumn:
    folders = list(dict.fromkeys([beside, ".", *_inside(root, ""), *_inside(root, beside)]))
    best = PathColumn(next(iter(cells)), ".")
    candidates = [column for column in cells if any(map(is_image_name, cells[column]))]
    # of columns of as many images, that with the most different names first: others name the left and the right eye of a person on each row
    for column in sorted(candidates, key=lambda column: -len(set(cells[column]))):
        shares = {folder: _share(TablePaths(root / folder), cells[column]) for folder in folders}
        most = max(shares.values())
        if most > best.share:
            holding = [folder for folder, share in shares.items() if share == most]
            # a slash says that the last part is a folder
            meant = [path.removesuffix("/") for path in _of_split([f"{folder}/" for folder in holding], split)]
            best = PathColumn(column, meant[0], share=most, rivals=tuple(meant[1:]))
    return best


def _inside(root: Path, folder: str) -> list[str]:
    """Returns the folders in a folder and in those, as paths from the root."""
    base = root / folder if folder else root
    names = subfolder_names(base)
    deeper = [f"{name}/{n}" for name in names[:MOST_FOLDERS] for n in subfolder_names(base / name)]
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
            folder, *others = _folders_of(hits, split)
            best = PathColumn(column, folder, lookup="name", share=share, rivals=tuple(others))
            most = different
    return best


def _of_split(paths: Sequence[str], split: SplitName | None) -> list[str]:
    """Returns the paths whose innermost folder that says a split says this one; else those that say none, and else all.

    A folder that is called as the split alone counts more than one that is called so among other words, such as `train_resized`.
    """
    said = {path: said_split(path) for path in paths} if split is not None else {}
    meant = [path for path in said if said[path] == split]
    exact = [path for path in meant if any(split_of(part) == split for part in path.split("/")[:-1])]
    return exact or meant or [path for path in said if said[path] is None] or [*paths]


def _folders_of(hits: Sequence[list[str]], split: SplitName | None) -> list[str]:
    """Returns the folder of the files that names name, given the paths of each name's files; several folders if they hold the names equally.

    Of files of one name, those count that are of the table's split. The outermost folder is returned if that is enough.
    """
    meant = [_of_split(found, split) for found in hits]
    whole = set.intersection(*({path.rpartition("/")[0] or "." for path in found} for found in meant))
    if not whole:  # the files are spread over several folders
        whole = set.intersection(*({_outermost(path) for path in found} for found in meant))
    folders = sorted(name for name in whole if BESIDE_IMAGES.isdisjoint(name.lower().split("/"))) or sorted(whole)
    if len(folders) != 1:
        return folders or ["."]
    outer = folders[0].partition("/")[0]
    enough = all(sum(_outermost(path) == outer for path in found) == 1 for found in hits)
    return [outer] if enough else folders


def _outermost(path: str) -> str:
    return path.rpartition("/")[0].partition("/")[0] or "."


def _by_last_part(paths: TablePaths, cells: dict[str, list[str]], split: SplitName | None) -> PathColumn:
    """Returns the column of absolute paths, all of one folder of another machine, whose last parts name images.

    All of them must, and by names that are no mere numbers: else other images may be meant.
    """
    for column, texts in cells.items():
        listed = [text.replace("\\", "/") for text in texts]
        folders, names = {path.rpartition("/")[0] for path in listed}, [path.rpartition("/")[2] for path in listed]
        if len(folders) == 1 and all(map(is_absolute, listed)) and all(map(_is_telling, names)):
            found = _by_name(paths, {column: names}, split)
            if found.share == 1:
                return replace(found, prefix=f"{folders.pop()}/")
    return PathColumn(next(iter(cells)), ".")


def _is_telling(name: str) -> bool:
    stem = PurePosixPath(name).stem
    return is_image_name(name) and len(stem) >= LEAST_NAME and re.search(r"[A-Za-z]", stem) is not None


def _with_suffix(root: Path, cells: dict[str, list[str]]) -> PathColumn:
    """Returns the column of names to which the files' names add one suffix, such as `_aligned`; those of masks do not count beside others."""
    stems = sorted({PurePosixPath(path).stem for path in image_paths(root)})
    known, best = set(stems), PathColumn(next(iter(cells)), ".")
    for column, texts in cells.items():
        names = [PurePosixPath(text).stem if is_image_name(text) else text for text in texts]
        shares: dict[str, float] = {}
        for name in dict.fromkeys(name for name in names[:TRIED_PREFIXES] if len(name) >= LEAST_NAME):
            at = bisect_left(stems, name)
            tried = [stem.removeprefix(name) for stem in stems[at : at + MOST_SUFFIXES] if stem.startswith(name)]
            for suffix in tried:
                if suffix not in shares and re.match(r"[-_. ][A-Za-z]", suffix):
                    shares[suffix] = sum(name + suffix in known for name in names) / len(names)
        most = max(shares.values(), default=0.0)
        if most > best.share:
            equal = sorted(suffix for suffix, share in shares.items() if share == most)
            first, *others = [suffix for suffix in equal if not OF_MASK.fullmatch(suffix)] or equal
            best = PathColumn(column, ".", lookup="name", suffix=first, share=most, rivals=tuple(others))
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
        name = path.rpartition("/")[2]
        if TablePaths(root, lookup="name").exists(name):
            return (
                f"{holds}; these are absolute, and only their last parts are there: write the names without folders, if these images are meant, else move "
                "the images that are meant there, and write their paths into the table"
            )
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
