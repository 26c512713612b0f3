"""Finds the files of labels that have one form and the rows of different splits, and which of their columns are labels, for `tailfill init`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from shared.config.dataset import SplitName
from shared.data.sources.infer_groups import determines, table_groups
from shared.data.sources.infer_labels import CIRCUMSTANCES, MOST_NUMBERS, SIZES, UNITS, words_of
from shared.data.sources.sheets import Sheet
from shared.data.sources.split_words import is_split_column, rest_of_name
from shared.names import shown

LEAST_SHARE = 0.9  # of the rows that a file must have to say something about them
MEASURES = frozenset({"box", "boxes", "bbox", "bounding", "landmark", "landmarks", "keypoints", "locs"})
"""Lists words in the names of files that measure images."""


@dataclass
class Family:
    """Holds files of one form that have the rows of different splits."""

    files: dict[SplitName | None, Sheet]
    columns: list[str]
    """Lists the columns that may be labels."""
    images: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.images = {image for sheet in self.files.values() for image in images_of(sheet)}

    @property
    def count(self) -> int:
        """Returns how many images its files name, of which those in different folders may have one name."""
        return sum(len(set(sheet.table.cells(image_column(sheet))) - {""}) for sheet in self.files.values())

    @property
    def first(self) -> Sheet:
        """Returns the file of the training images, or the only one."""
        return self.files.get("train") or next(iter(self.files.values()))

    @property
    def divided(self) -> bool:
        """Returns whether its files say the splits of the images."""
        return len(self.files) > 1


def images_of(sheet: Sheet) -> set[str]:
    """Returns the names of the images in a sheet, without folders and endings."""
    assert sheet.path is not None
    return {PurePosixPath(cell.replace("\\", "/")).stem for cell in sheet.table.cells(sheet.path.column) if cell}


def image_column(sheet: Sheet) -> str:
    assert sheet.path is not None
    return sheet.path.column


def find_families(sheets: Sequence[Sheet]) -> list[Family]:
    """Returns the files with labels of images, those of one form and different splits together; of numbered ones the first."""
    labels = {sheet.file: label_columns(sheet) for sheet in sheets if sheet.path is not None}
    forms: dict[tuple[object, ...], list[Sheet]] = {}
    for sheet in sheets:
        if sheet.path is not None:
            folder = "" if sheet.split else PurePosixPath(sheet.file).parent.as_posix()
            forms.setdefault((*sheet.kind, folder), []).append(sheet)
    families = []
    for same in forms.values():
        # a file of few rows does not show by itself which columns are labels; one with the same in all rows holds none
        found = {column for sheet in same for column in labels[sheet.file]}
        same = [sheet for sheet in same if any(len(set(sheet.table.cells(column))) > 1 for column in found)]
        folds: dict[int, dict[SplitName | None, Sheet]] = {}
        once = len({sheet.split for sheet in same}) == len(same)  # then a number, as in `train_1.csv`, counts no folds
        for sheet in sorted(same, key=_rows):  # `train` before `trainval`
            folds.setdefault(0 if once else sheet.fold, {}).setdefault(sheet.split, sheet)
        first = folds[min(folds)] if folds else {}
        whole = "train" in first and len(first) > 1 and None not in first
        parts: list[dict[SplitName | None, Sheet]] = [first] if whole else [{None: sheet} for sheet in first.values()]
        for part in parts:
            tried = [part["train"]] if "train" in part else []
            columns = next((labels[sheet.file] for sheet in (*tried, *part.values()) if labels[sheet.file]), [])
            if columns:
                families.append(Family(part, columns))
    return families


def _rows(sheet: Sheet) -> int:
    return len(sheet.table.rows)


def label_columns(sheet: Sheet) -> list[str]:
    """Returns the columns of a sheet that look like labels; of columns without a name only the first that determines the others."""
    words = set(rest_of_name(sheet.stem)[0].split())
    if words & MEASURES or (says_split(sheet) and len(sheet.others) == 1):
        return []
    columns = [
        column
        for column in sheet.others
        if words_of(column) not in SIZES | CIRCUMSTANCES | UNITS and not is_split_column(column)
    ]
    groups = table_groups(sheet.table, columns, [])
    found = [column for group in groups.values() for column in group.columns or (group.column,) if column is not None]
    if not sheet.unnamed or (groups and all(group.columns for group in groups.values())):
        return found
    if unit_words(sheet) is not None:  # the numbers of persons are no classes
        found = [column for column in found if len(set(sheet.table.cells(column))) <= MOST_NUMBERS]
    return next(([c] for c in found if all(determines(sheet.table, c, other) for other in found)), found[:1])


def unused_numbers(sheets: Sequence[Sheet]) -> str | None:
    """Returns what to do about a list of images with many numbers that are not taken for classes, since they leave some out; None if there is none."""
    for sheet in sheets:
        measures = set(rest_of_name(sheet.stem)[0].split()) & MEASURES or unit_words(sheet) is not None
        if sheet.path is None or not sheet.unnamed or measures:
            continue
        for column in sheet.others:
            cells = sheet.table.cells(column)
            if MOST_NUMBERS < len(set(cells)) <= len(cells) // 2 and all(cell.isdecimal() for cell in cells):
                return (
                    f"{shown(sheet.file)} names images, but its numbers are taken for no classes, as they leave some out or do not determine the rest of a "
                    "row; if they are, write a first line with the names of the columns into it, such as `path label`"
                )
    return None


def with_names(sheets: Sequence[Sheet]) -> list[Sheet]:
    """Returns the sheets, those without names of columns with names for the column of the images and that of the labels.

    Files of one form have their labels in the same column, that of the longest, as others may be too short to tell.
    """
    found = {sheet.file: label_columns(sheet) for sheet in sheets if sheet.unnamed and sheet.path is not None}
    of_form: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for sheet in sorted(sheets, key=_rows):
        if labels := found.get(sheet.file):
            of_form[sheet.kind] = labels
    return [_named(sheet, of_form.get(sheet.kind, [])) if sheet.file in found else sheet for sheet in sheets]


def _named(sheet: Sheet, labels: Sequence[str]) -> Sheet:
    assert sheet.path is not None
    only = [labels[0]] if len(labels) == 1 and labels[0] != sheet.path.column else []
    for column, name in ((sheet.path.column, "path"), *((column, "label") for column in only)):
        sheet = renamed(sheet, column, name)
    return sheet


def only_numbers(family: Family) -> bool:
    cells = {cell for column in family.columns[:1] for cell in family.first.table.cells(column)}
    return len(family.columns) == 1 and all(cell.isdecimal() for cell in cells)


def is_alike(main: Family, family: Family) -> bool:
    """Returns whether two families answer different questions about the same images in the same form, each in one column without a name."""
    if family is main:
        return True
    named = not main.first.unnamed or len(main.first.table.columns) != 2
    same = main.files.keys() == family.files.keys() and main.first.table.columns == family.first.table.columns
    return same and not named and main.images == family.images


def continues(main: Family, family: Family) -> bool:
    """Returns whether a list has the same form and splits as another, other images, and the same numbers for the same folders of classes."""
    if not (main.first.unnamed and main.divided) or family is main or main.images & family.images:
        return False
    if main.files.keys() != family.files.keys() or main.first.table.columns != family.first.table.columns:
        return False
    first, second = _folder_labels(main), _folder_labels(family)
    return bool(first.keys() & second.keys()) and all(
        len(labels) == 1 and labels == first.get(folder, labels) for folder, labels in second.items()
    )


def _folder_labels(family: Family) -> dict[str, set[str]]:
    """Returns the labels of the images in each folder, by the name of the innermost one."""
    found: dict[str, set[str]] = {}
    for sheet in family.files.values():
        for row in sheet.table.rows:
            folder = row.cells[image_column(sheet)].replace("\\", "/").rpartition("/")[0].rpartition("/")[2]
            found.setdefault(folder, set()).update(row.cells[column] for column in family.columns)
    return found


def unit_words(sheet: Sheet) -> str | None:
    return next((word for word in re.split(r"[\W_]+", sheet.stem.lower()) if word in UNITS), None)


def renamed(sheet: Sheet, column: str, name: str) -> Sheet:
    """Returns a sheet without names of columns, one of which has a name now."""
    if sheet.header is None:
        return sheet
    header = tuple(name if each == column else each for each in sheet.header)
    rows = [
        replace(row, cells={name if c == column else c: cell for c, cell in row.cells.items()})
        for row in sheet.table.rows
    ]
    table = replace(sheet.table, columns=header, rows=rows)
    path = replace(sheet.path, column=name) if sheet.path is not None and sheet.path.column == column else sheet.path
    return replace(sheet, header=header, table=table, path=path)


def says_split(sheet: Sheet) -> bool:
    """Returns whether the name of a file says that it divides all images."""
    return bool({"split", "splits", "partition"} & set(re.split(r"[\W_]+", sheet.stem.lower())))
