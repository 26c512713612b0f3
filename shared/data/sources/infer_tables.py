"""Infers how several files of text beside images belong together, for `tailfill init`: labels, splits, patients and names in files of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from shared.config.dataset import CsvFile, CsvGroup, CsvSource, SplitName
from shared.data.problems import Problems
from shared.data.source import InferredSource
from shared.data.sources.csv_file import Row, listed
from shared.data.sources.csv_parts import joined_table
from shared.data.sources.infer_csv import numbered_splits, table_source
from shared.data.sources.infer_families import (
    LEAST_SHARE,
    Family,
    continues,
    find_families,
    image_column,
    images_of,
    is_alike,
    label_columns,
    only_numbers,
    renamed,
    says_split,
    unit_words,
    with_names,
)
from shared.data.sources.infer_groups import repeats, table_groups
from shared.data.sources.infer_labels import UNITS, words_of
from shared.data.sources.infer_paths import find_path_column
from shared.data.sources.sheets import Sheet
from shared.data.sources.split_words import rest_of_name, split_of_file
from shared.errors import DataError
from shared.names import shown


def infer_tables(root: Path, sheets: Sequence[Sheet]) -> tuple[InferredSource, int] | None:
    """Returns the source of sheets that belong together, and how many images they name; None if they hold no labels of images."""
    sheets = with_names(sheets)
    families = every = find_families(sheets)
    if not families:
        return _by_id(root, sheets)
    most = max(family.count for family in families)
    families = [family for family in families if family.count >= LEAST_SHARE * most]
    main = min(families, key=lambda family: (only_numbers(family), not family.divided, len(family.first.others)))
    _check_same_form(root, main, sheets)
    folders = _image_folders(main)
    joinable = not folders or main.count == len(main.images)  # else a name alone says no image
    alike = [family for family in families if family is main or (joinable and is_alike(main, family))]
    fields = _fields(main, folders)
    more: list[dict[str, Any]] = [
        _part(sheet, None, split) | {"folder": folders.get(sheet.file)}
        for split, sheet in main.files.items()
        if sheet is not main.first
    ]
    further = [family for family in every if family not in alike and continues(main, family)]
    more += [_part(sheet, None, split) for family in further for split, sheet in family.files.items()]
    names: dict[str, str] = {}
    labels = list(main.columns)
    if len(alike) > 1:
        words = _different([rest_of_name(family.first.stem)[0] for family in alike])
        for family, word in zip(alike, words, strict=True):
            names[main.columns[0] if family is main else word] = word
            if family is not main:
                labels.append(word)
                named = [renamed(sheet, family.columns[0], word) for sheet in family.files.values()]
                more += [_part(sheet, image_column(main.first), None) for sheet in named]
    others = [family for family in families if family not in alike and family.divided] if not main.divided else []
    if others:
        other = min(others, key=lambda family: family.first.fold)
        more += [_part(sheet, image_column(main.first), split) for split, sheet in other.files.items()]
    used = {sheet.file for family in (*alike, *further, *others[:1]) for sheet in family.files.values()}
    divided = main.divided or bool(others)
    unused = [sheet for sheet in sheets if sheet.file not in used]
    if joinable:
        more += _about(main, unused, divided)
    source = _source(root, main, fields, more, labels, names, folders)
    return replace(source, notes=(*source.notes, *_doubts(main, further), *_left_out(main, unused))), main.count


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


def _doubts(main: Family, further: Sequence[Family]) -> list[str]:
    """Returns what was decided about lists without a header, although it might be meant otherwise."""
    sheet, notes = main.first, list[str]()
    if not sheet.unnamed:
        return []
    if further:
        files = [family.first.file for family in (main, *further)]
        notes.append(f"the images of {listed(files)} and of the files beside them are taken for one data set")
    told = [column for column in sheet.others if len(set(sheet.table.cells(column))) > 1]
    others = [column for column in told if column not in main.columns and repeats(sheet.table.cells(column))]
    if others and len(main.columns) == 1:
        place = sheet.table.columns.index(main.columns[0]) + 1
        notes.append(
            f"{shown(sheet.file)}: has no names of columns; column {place} is taken for the labels, and {len(others)} more that repeat are left out; to use "
            "another, change dataset.header"
        )
    return notes


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
    return any("/" in cell for sheet in main.files.values() for cell in sheet.table.cells(image_column(sheet)))


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
    on, parts, unit = image_column(main.first), list[dict[str, Any]](), False
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
        if len(columns) == 1 and says_split(sheet) and not divided:
            split_header = renamed(sheet, columns[0], "partition")
            if numbered_splits("partition", sheet.table.cells(columns[0])):
                parts.append(_part(split_header, on, None))
                divided = True
        elif not unit and len(columns) == 1 and sheet.header is not None and (words := unit_words(sheet)):
            parts.append(_part(renamed(sheet, columns[0], words), on, None))
            unit = True
        elif not unit and any(words_of(column) in UNITS for column in columns) and not _has_unit(main):
            parts.append(_part(sheet, on, None))
            unit = True
    return parts


def _has_unit(main: Family) -> bool:
    return any(words_of(column) in UNITS for column in main.first.others)


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
        divides = [sheet for sheet in keyed if says_split(sheet)]
        labels = [
            sheet for sheet in keyed if sheet not in divides and table_groups(sheet.table, sheet.table.columns[1:], [])
        ]
        if len(labels) != 1:
            continue
        main = Family({None: renamed(renamed(images, images.others[0], "id"), images.path.column, "path")}, ["label"])
        parts = [_part(renamed(labels[0], labels[0].table.columns[1], "label"), "id", None)]
        for sheet in divides[:1]:
            parts.append(_part(renamed(sheet, sheet.table.columns[1], "is_train"), "id", None))
        return _source(root, main, _fields(main, {}), parts, ["label"], {}, {}), len(main.images)
    return None


def _source(
    root: Path,
    main: Family,
    fields: dict[str, Any],
    more: list[dict[str, Any]],
    labels: list[str],
    names: dict[str, str],
    folders: Mapping[str, str],
) -> InferredSource:
    """Returns the source of the joined files; `folders` holds the folder of each file's images, if they differ."""
    sheet = main.first
    assert sheet.path is not None
    if more:
        parts = [{name: value for name, value in part.items() if value is not None and value != 0} for part in more]
        fields = fields | {"more": tuple(map(CsvFile.model_validate, parts))}
    found = sheet.path
    if folders:
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
