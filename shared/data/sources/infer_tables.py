"""Infers how several files of text beside images belong together, for `tailfill init`: labels, splits, patients and names in files of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from shared.config.dataset import CsvFile, CsvGroup, CsvSource, SplitName
from shared.data.problems import Problems
from shared.data.source import InferredSource
from shared.data.sources.csv_file import Row, listed
from shared.data.sources.csv_parts import joined_table
from shared.data.sources.infer_csv import numbered_splits, table_source
from shared.data.sources.infer_groups import determines, table_groups
from shared.data.sources.infer_labels import CIRCUMSTANCES, MOST_NUMBERS, SIZES, UNITS, words_of
from shared.data.sources.infer_paths import find_path_column
from shared.data.sources.sheets import Sheet
from shared.data.sources.split_words import is_split_column, rest_of_name, split_of_file
from shared.errors import DataError
from shared.names import shown

LEAST_SHARE = 0.9  # of the rows that a file must have to say something about them
MEASURES = frozenset({"box", "boxes", "bbox", "bounding", "landmark", "landmarks", "keypoints", "locs", "meta"})
"""Lists words in the names of files that measure images, or describe classes."""


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


def infer_tables(root: Path, sheets: Sequence[Sheet]) -> tuple[InferredSource, int] | None:
    """Returns the source of sheets that belong together, and how many images they name; None if they hold no labels of images."""
    sheets = _with_names(sheets)
    families = every = _families(sheets)
    if not families:
        return _by_id(root, sheets)
    most = max(len(family.images) for family in families)
    families = [family for family in families if len(family.images) >= LEAST_SHARE * most]
    main = min(families, key=lambda family: (_only_numbers(family), not family.divided, len(family.first.others)))
    _check_same_form(root, main, sheets)
    folders = _image_folders(main)
    count = sum(len(images_of(sheet)) for sheet in main.files.values()) if folders else len(main.images)
    joinable = count == len(main.images)  # else a name alone says no image
    alike = [family for family in families if family is main or (joinable and _is_alike(main, family))]
    fields = _fields(main, folders)
    more: list[dict[str, Any]] = [
        _part(sheet, None, split) | {"folder": folders.get(sheet.file)}
        for split, sheet in main.files.items()
        if sheet is not main.first
    ]
    further = [family for family in every if family not in alike and _continues(main, family)]
    more += [_part(sheet, None, split) for family in further for split, sheet in family.files.items()]
    names: dict[str, str] = {}
    labels = list(main.columns)
    if len(alike) > 1:
        words = _different([rest_of_name(family.first.stem)[0] for family in alike])
        for family, word in zip(alike, words, strict=True):
            names[main.columns[0] if family is main else word] = word
            if family is not main:
                labels.append(word)
                named = [_renamed(sheet, family.columns[0], word) for sheet in family.files.values()]
                more += [_part(sheet, _column(main.first), None) for sheet in named]
    others = [family for family in families if family not in alike and family.divided] if not main.divided else []
    if others:
        other = min(others, key=lambda family: family.first.fold)
        more += [_part(sheet, _column(main.first), split) for split, sheet in other.files.items()]
    used = {sheet.file for family in (*alike, *further, *others[:1]) for sheet in family.files.values()}
    divided = main.divided or bool(others)
    unused = [sheet for sheet in sheets if sheet.file not in used]
    if joinable:
        more += _about(main, unused, divided)
    source = _source(root, main, fields, more, labels, names)
    return replace(source, notes=(*source.notes, *_doubts(main, further), *_left_out(main, unused))), count


def _left_out(main: Family, sheets: Sequence[Sheet]) -> list[str]:
    """Returns a note for each other file that labels images, most of which no file that is read names."""
    notes = []
    for sheet in sheets:
        if sheet.path is not None and label_columns(sheet):
            images = images_of(sheet)
            if len(images & main.images) < len(images) / 2:
                notes.append(f"{sheet.file} is left out: it labels {len(images - main.images):,} other images")
    return notes


def _check_same_form(root: Path, main: Family, sheets: Sequence[Sheet]) -> None:
    """Raises DataError if a file of the form of the main ones has the rows of another split, but its images are not found: they would be lost."""
    first = main.first
    for sheet in sheets:
        alike = sheet.path is None and (sheet.kind, sheet.fold) == (first.kind, first.fold)
        if alike and sheet.split not in (None, first.split, *main.files):
            beside = PurePosixPath(sheet.file).parent.as_posix()
            try:
                find_path_column(root, sheet.table, split=sheet.split, beside=beside)
            except DataError as error:
                message = f"{error}; {sheet.file} has the form of {first.file}: move it elsewhere if its images are not to be read"
                raise DataError(message) from error


def _column(sheet: Sheet) -> str:
    assert sheet.path is not None
    return sheet.path.column


def _families(sheets: Sequence[Sheet]) -> list[Family]:
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
        for sheet in sorted(same, key=_rows):  # `train` before `trainval`
            folds.setdefault(sheet.fold, {}).setdefault(sheet.split, sheet)
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
    if words & MEASURES or (_divides(sheet) and len(sheet.others) == 1):
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
    if _unit_words(sheet) is not None:  # the numbers of persons are no classes
        found = [column for column in found if len(set(sheet.table.cells(column))) <= MOST_NUMBERS]
    return next(([c] for c in found if all(determines(sheet.table, c, other) for other in found)), found[:1])


def unused_numbers(sheets: Sequence[Sheet]) -> str | None:
    """Returns what to do about a list of images with many numbers that are not taken for classes, since they leave some out; None if there is none."""
    for sheet in sheets:
        measures = set(rest_of_name(sheet.stem)[0].split()) & MEASURES or _unit_words(sheet) is not None
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


def _with_names(sheets: Sequence[Sheet]) -> list[Sheet]:
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
        sheet = _renamed(sheet, column, name)
    return sheet


def _divides(sheet: Sheet) -> bool:
    """Returns whether the name of a file says that it divides all images."""
    return bool({"split", "splits", "partition"} & set(re.split(r"[\W_]+", sheet.stem.lower())))


def _only_numbers(family: Family) -> bool:
    cells = {cell for column in family.columns[:1] for cell in family.first.table.cells(column)}
    return len(family.columns) == 1 and all(cell.isdecimal() for cell in cells)


def _is_alike(main: Family, family: Family) -> bool:
    """Returns whether two families answer different questions about the same images in the same form, each in one column without a name."""
    if family is main:
        return True
    named = not main.first.unnamed or len(main.first.table.columns) != 2
    same = main.files.keys() == family.files.keys() and main.first.table.columns == family.first.table.columns
    return same and not named and main.images == family.images


def _continues(main: Family, family: Family) -> bool:
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
            folder = row.cells[_column(sheet)].replace("\\", "/").rpartition("/")[0].rpartition("/")[2]
            found.setdefault(folder, set()).update(row.cells[column] for column in family.columns)
    return found


def _doubts(main: Family, further: Sequence[Family]) -> list[str]:
    """Returns what was decided about lists without a header, although it might be meant otherwise."""
    sheet, notes = main.first, list[str]()
    if not sheet.unnamed:
        return []
    if further:
        files = [family.first.file for family in (main, *further)]
        notes.append(f"the images of {listed(files)} and of the files beside them are taken for one data set")
    others = [c for c in sheet.others if c not in main.columns and _is_told(sheet, c)]
    if others and len(main.columns) == 1:
        place = sheet.table.columns.index(main.columns[0]) + 1
        notes.append(
            f"{shown(sheet.file)}: has no names of columns; column {place} is taken for the labels, and {len(others)} more that repeat are left out; to use "
            "another, change dataset.header"
        )
    return notes


def _is_told(sheet: Sheet, column: str) -> bool:
    cells = sheet.table.cells(column)
    return 1 < len(set(cells)) < len(cells)


def _different(names: Sequence[str]) -> list[str]:
    """Returns the words that each name has alone, for the names of groups."""
    common = set.intersection(*(set(name.split()) for name in names))
    return ["_".join(word for word in name.split() if word not in common) or "label" for name in names]


def _fields(main: Family, folders: Mapping[str, str]) -> dict[str, Any]:
    sheet = main.first
    split = next((split for split, each in main.files.items() if each is sheet), None) if main.divided else None
    fields = {
        "file": sheet.file,
        "delimiter": sheet.delimiter,
        "header": sheet.header,
        "skip_lines": sheet.skip_lines or None,
        "file_split": split,
        "file_folder": folders.get(sheet.file),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _image_folders(main: Family) -> dict[str, str]:
    """Returns the folder of each file's images, by the file, if they differ; nothing if the images of all files are found alike."""
    found = {sheet.file: sheet.path for sheet in main.files.values() if sheet.path is not None}
    lookups = {path.lookup for path in found.values()}
    if len({path.image_folder for path in found.values()}) == 1:
        return {}
    if len({(path.prefix, path.suffix) for path in found.values()}) > 1 or (len(lookups) > 1 and _nested(main)):
        return {}
    return {file: path.image_folder for file, path in found.items() if path.image_folder != "."}


def _nested(main: Family) -> bool:
    """Returns whether cells that name images name folders, too."""
    return any("/" in cell for sheet in main.files.values() for cell in sheet.table.cells(_column(sheet)))


def _part(sheet: Sheet, on: str | None, split: SplitName | None) -> dict[str, Any]:
    """Returns the setting of another file, whose rows are added, or joined on a column."""
    key = sheet.path.column if sheet.path is not None else sheet.table.columns[0]
    header = sheet.header if sheet.header is None or on is None else tuple(on if c == key else c for c in sheet.header)
    return {
        "file": sheet.file,
        "delimiter": sheet.delimiter,
        "header": header,
        "skip_lines": sheet.skip_lines,
        "on": on,
        "key": key if on is not None and sheet.header is None and key != on else None,
        "split": split,
    }


def _about(main: Family, sheets: Sequence[Sheet], divided: bool) -> list[dict[str, Any]]:
    """Returns the settings of files that say the split, or the patient and the like, of most of the images."""
    on, parts, unit = _column(main.first), list[dict[str, Any]](), False
    lists = [sheet for sheet in sheets if sheet.path is not None and not sheet.others and split_of_file(sheet.stem)]
    found: dict[SplitName, Sheet] = {}
    for sheet in sorted(lists, key=lambda sheet: (sheet.fold, len(sheet.table.rows))):
        if (split := split_of_file(sheet.stem)) is not None:
            found.setdefault(split, sheet)
    listed = set[str]().union(*(images_of(sheet) for sheet in found.values())) if found else set()
    if (
        not divided
        and "train" in found
        and len(found) > 1
        and len(listed & main.images) >= LEAST_SHARE * len(main.images)
    ):
        parts += [_part(sheet, on, split) for split, sheet in found.items()]
        divided = True
    for sheet in sheets:
        if sheet.path is None or len(images_of(sheet) & main.images) < LEAST_SHARE * len(main.images):
            continue
        columns = sheet.others
        if len(columns) == 1 and _divides(sheet) and not divided:
            split_header = _renamed(sheet, columns[0], "partition")
            if numbered_splits("partition", sheet.table.cells(columns[0])):
                parts.append(_part(split_header, on, None))
                divided = True
        elif not unit and len(columns) == 1 and sheet.header is not None and (words := _unit_words(sheet)):
            parts.append(_part(_renamed(sheet, columns[0], words), on, None))
            unit = True
        elif not unit and any(words_of(column) in UNITS for column in columns) and not _has_unit(main):
            parts.append(_part(sheet, on, None))
            unit = True
    return parts


def _has_unit(main: Family) -> bool:
    return any(words_of(column) in UNITS for column in main.first.others)


def _unit_words(sheet: Sheet) -> str | None:
    return next((word for word in re.split(r"[\W_]+", sheet.stem.lower()) if word in UNITS), None)


def _renamed(sheet: Sheet, column: str, name: str) -> Sheet:
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


def _by_id(root: Path, sheets: Sequence[Sheet]) -> tuple[InferredSource, int] | None:
    """Returns the source of a list of images whose numbers other files label, as those of birds are; None if there is none."""
    for images in sheets:
        if images.path is None or len(images.others) != 1 or images.header is None:
            continue
        ids = images.table.cells(images.others[0])
        if len(set(ids)) < len(ids):
            continue
        keyed = [sheet for sheet in sheets if sheet.path is None and sheet.header and len(sheet.table.columns) == 2]
        keyed = [sheet for sheet in keyed if set(sheet.table.cells(sheet.table.columns[0])) == set(ids)]
        divides = [sheet for sheet in keyed if _divides(sheet)]
        labels = [
            sheet for sheet in keyed if sheet not in divides and table_groups(sheet.table, sheet.table.columns[1:], [])
        ]
        if len(labels) != 1:
            continue
        main = Family({None: _renamed(_renamed(images, images.others[0], "id"), images.path.column, "path")}, ["label"])
        parts = [_part(_renamed(labels[0], labels[0].table.columns[1], "label"), "id", None)]
        for sheet in divides[:1]:
            parts.append(_part(_renamed(sheet, sheet.table.columns[1], "is_train"), "id", None))
        return _source(root, main, _fields(main, {}), parts, ["label"], {}), len(main.images)
    return None


def _source(
    root: Path,
    main: Family,
    fields: dict[str, Any],
    more: list[dict[str, Any]],
    labels: list[str],
    names: dict[str, str],
) -> InferredSource:
    """Returns the source of the joined files."""
    sheet = main.first
    assert sheet.path is not None
    if more:
        parts = [{name: value for name, value in part.items() if value is not None and value != 0} for part in more]
        fields = fields | {"more": tuple(map(CsvFile.model_validate, parts))}
    found = sheet.path
    if folders := _image_folders(main):
        alike = len({each.path.lookup for each in main.files.values() if each.path is not None}) == 1
        found = replace(found, image_folder=".", lookup=found.lookup if alike else "name")
    stub = {
        "source": "csv",
        "root": str(root),
        "path_column": found.column,
        "groups": {"label": CsvGroup(column="label")},
    }
    table = joined_table(CsvSource.model_validate({**stub, **fields}), root, Problems("skip"))
    if folders:  # a name alone may be that of an image of each file
        table = replace(table, rows=[_with_folder(row, found.column, folders.get(row.file)) for row in table.rows])
    named = {column: names.get(column, column) for column in labels}
    return table_source(root, fields, table, found, labels, named)


def _with_folder(row: Row, column: str, folder: str | None) -> Row:
    """Returns a row whose image is named with its folder."""
    return replace(row, cells=row.cells | {column: f"{folder}/{row.cells[column]}"}) if folder is not None else row
