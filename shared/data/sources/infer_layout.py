"""Decides between tables and class folders if a data set has both, for `tailfill init`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from shared.config.dataset import CsvSource, FolderSource
from shared.data.problems import Problems
from shared.data.schema import LabelSchema
from shared.data.source import InferredSource, SourceImage
from shared.data.sources.class_folders import check_folders, read_folder
from shared.data.sources.csv_table import read_csv
from shared.data.sources.image_finder import said_split
from shared.data.sources.infer_csv import infer_csv, labelled_tables, without_labels
from shared.data.sources.infer_families import label_columns, unused_numbers
from shared.data.sources.infer_folders import infer_folder
from shared.data.sources.infer_labels import words_of
from shared.data.sources.infer_tables import infer_tables
from shared.data.sources.members import images_below, is_image_name
from shared.data.sources.sheets import TABLE_SUFFIXES, Sheet, read_sheets
from shared.data.sources.table_paths import is_url
from shared.data.sources.unread import check_images
from shared.errors import DataError
from shared.names import shown

LEAST_SHARE = 0.5  # of the images in class folders, that a table must name to count more than the folders
CORNERS = (
    frozenset({"xmin", "ymin", "xmax", "ymax"}),
    frozenset({"x_min", "y_min", "x_max", "y_max"}),
    frozenset({"x1", "y1", "x2", "y2"}),
    frozenset({"bbox"}),
)
"""Lists the names of columns, as `words_of` gives them, that together say a box."""
USABLE = 0.9  # of the images that a table names, that must be found
MOST_UNREAD = 3  # files that are named in notes
MOST_ROWS = 2  # rows for each folder of images, in a table that is about classes


@dataclass(frozen=True)
class _Listed:
    """Holds what a source lists, and the first row or file that it cannot use."""

    schema: LabelSchema
    images: Sequence[SourceImage]
    problem: str

    @property
    def files(self) -> set[object]:
        """Returns where its images are."""
        return {image.content for image in self.images}

    @property
    def divided(self) -> bool:
        """Returns whether its images are in several splits."""
        return len({image.split for image in self.images} - {None}) > 1


def infer_layout(data: Path) -> InferredSource | None:
    """Returns the source of a table, or of a folder with tables, class folders or both; None if it has neither.

    What says the splits counts more; else a table counts more than folders, if it names most of the images. Raises DataError that says what is missing if
    a table alone names no images or no labels, if most of its images are missing, or if there are several that do not belong together.
    """
    if data.is_file():
        return infer_csv(data)
    root = data.resolve()
    sheets = read_sheets(root)
    _check_readable(root, sheets)
    found = infer_tables(root, sheets) if sheets else None
    if found is None:
        tables = labelled_tables(data)
        if len(tables) == 1 and not without_labels(tables[0]):
            return _only_table(data, tables[0].name, sheets)
        return _with_unread(_without_lists(infer_folder(data, sheets) or infer_csv(data), sheets), sheets, root)
    source, named = found
    if isinstance(source.dataset, CsvSource) and not source.dataset.more and len(tables := labelled_tables(data)) == 1:
        source = infer_csv(data) or source if tables[0].name == source.dataset.file else source
    table = _listed(source)
    try:
        found_folders = _class_folders(data, sheets)
    except DataError:
        found_folders = None
    if found_folders is None:  # the table says what the folders leave open
        _check_splits(source, table)
        _check_unnamed(source, table)
        return source
    folders, in_folders = found_folders
    if in_folders.divided and len(table.images) < USABLE * named:
        why = f"{len(table.images):,} of the {named:,} images that it names are found"
        return _without_table(folders, source, table, why)
    if in_folders.divided and not table.divided:
        return _without_table(folders, source, table, "the folders say the splits, and it does not")
    _check_splits(source, table)
    if named >= LEAST_SHARE * len(in_folders.images):
        _check_found(source, table, named)
    if in_folders.divided and _repeats_folders(source, table):
        why = "one of its columns repeats the folders' names, and the others have the same classes"
        return _without_table(folders, source, table, why)
    if table.files.isdisjoint(in_folders.files):
        return _without_table(folders, source, table, "it names none of the images in class folders")
    others = in_folders.images if in_folders.divided else _others(in_folders, table)
    if len(table.images) < LEAST_SHARE * len(others) and not (table.divided and not in_folders.divided):
        why = f"it names {len(table.images):,} images, and the folders hold {len(in_folders.images):,}"
        return _without_table(folders, source, table, why)
    return source


def _others(in_folders: _Listed, table: _Listed) -> Sequence[SourceImage]:
    """Returns the images in class folders without other versions of those that a table names, which have the same names in another folder."""
    names = {PurePosixPath(image.path).name for image in table.images}
    if len(names) < len(table.files):  # then a name says no image
        return in_folders.images
    files = table.files
    return [each for each in in_folders.images if each.content in files or PurePosixPath(each.path).name not in names]


def _class_folders(data: Path, sheets: Sequence[Sheet]) -> tuple[InferredSource, _Listed] | None:
    """Returns the source of class folders and what it lists; None if there are none. Raises DataError if they may be read in two ways."""
    folders = infer_folder(data, sheets)
    if folders is None or not isinstance(folders.dataset, FolderSource) or folders.dataset.by == "name":
        return None
    return folders, _listed(folders)


def _only_table(data: Path, name: str, sheets: Sequence[Sheet]) -> InferredSource | None:
    """Returns the source of the only table of a data set, or of its class folders if the table has a row per class, not per image."""
    try:
        return infer_csv(data)
    except DataError as error:
        rows = next(
            (sheet.table.rows for sheet in sheets if sheet.file == name and _is_about_classes(sheet, data)), None
        )
        try:
            found = _class_folders(data, sheets)
        except DataError:
            if rows is not None:
                raise  # what is wrong with the folders
            found = None
        if found is None:
            raise error from None
        folders, listed = found
        if rows is None or len(rows) > MOST_ROWS * len(listed.schema.class_names):
            raise DataError(f"{error}; if the folders are the classes, move {name} elsewhere") from error
        note = f"{name} has a row per class, not per image: the folders say the classes"
        return replace(folders, notes=(*folders.notes, note))


def _is_about_classes(sheet: Sheet, data: Path) -> bool:
    """Returns whether a table has about a row for each folder of images, and neither names images nor has a column that looks like labels.

    URLs may be those of images, unless most rows name a folder.
    """
    folders = {path.parent for path in images_below(data) if path.parent != data}
    if len(sheet.table.rows) > MOST_ROWS * len(folders):
        return False
    cells = [cell for row in sheet.table.rows for cell in row.cells.values()]
    names = {words_of(folder.name) for folder in folders}
    named = sum(any(words_of(cell) in names for cell in row.cells.values()) for row in sheet.table.rows)
    urls = 2 * named <= len(sheet.table.rows) and any(map(is_url, cells))
    return not urls and not any(map(is_image_name, cells)) and not label_columns(sheet)


def _without_lists(source: InferredSource | None, sheets: Sequence[Sheet]) -> InferredSource | None:
    """Returns a source that goes by no list of images, with a note if there is one of numbers that may be classes; raises DataError if it
    is nothing without that."""
    why = unused_numbers(sheets)
    if why is None:
        return source
    if source is None:
        raise DataError(why)
    if isinstance(source.dataset, FolderSource):
        check_folders(source.dataset, source.root, why)
    return replace(source, notes=(*source.notes, why))


def _with_unread(source: InferredSource | None, sheets: Sequence[Sheet], root: Path) -> InferredSource | None:
    """Returns the source of class folders with a note on files with rows for at least half of the images, which name none."""
    if source is None or not isinstance(source.dataset, FolderSource):
        return source
    images = sum(1 for _ in images_below(root))
    unread = [s for s in sheets if s.path is None and 2 * len(s.table.rows) >= images]
    notes = tuple(
        f"{shown(sheet.file)} is not read, since no column names the images; `tailfill init {shlex.quote(str(root / sheet.file))}` says what it lacks"
        for sheet in unread[:MOST_UNREAD]
        if sheet.file not in (*source.dataset.tables.values(), *source.dataset.lists.values())
    )
    return replace(source, notes=(*source.notes, *notes))


def _check_readable(root: Path, sheets: Sequence[Sheet]) -> None:
    """Raises DataError if the images are of a kind that is not read, or if all tables with labels hold boxes."""
    check_images(root)
    boxes = [sheet for sheet in sheets if sheet.path is not None and _holds_boxes(sheet)]
    if boxes and not any(s.path is not None and not _holds_boxes(s) and label_columns(s) for s in sheets):
        raise DataError(
            f"{boxes[0].file}: holds boxes in a table, which are not read; export them as COCO, YOLO or Pascal VOC, e.g. by `datum convert`, or remove the "
            f"columns of the boxes if each image shows one thing, then run `tailfill init {shlex.quote(str(root))}` again"
        )


def _holds_boxes(sheet: Sheet) -> bool:
    words = {words_of(column) for column in sheet.others}
    return any(corners <= words for corners in CORNERS)


def _listed(source: InferredSource) -> _Listed:
    dataset, problems = source.dataset, Problems("skip")
    if isinstance(dataset, FolderSource):
        listing = read_folder(dataset, source.root, problems)
    else:
        assert isinstance(dataset, CsvSource)
        listing = read_csv(dataset, source.root, problems)
    images = list(listing.images)
    return _Listed(listing.schema, images, problems.lines[0] if problems.lines else "")


def _check_splits(source: InferredSource, table: _Listed) -> None:
    """Raises DataError if no image of a split that a file has the rows of is found."""
    assert isinstance(source.dataset, CsvSource)
    parts = {part.split: part.file for part in source.dataset.more if part.on is None}
    files = {source.dataset.file_split: source.dataset.file, **parts}
    splits = {image.split for image in table.images}
    lost = [file for split, file in files.items() if split is not None and split not in splits]
    if lost:
        raise DataError(
            f"{lost[0]}: none of its images is found below {source.root.name}/ ({table.problem}); write their paths into the table, or move it elsewhere"
        )


def _check_found(source: InferredSource, table: _Listed, named: int) -> None:
    """Raises DataError if many of the images that a table names are not found: the folders, which may be anything, do not take its place."""
    if len(table.images) < USABLE * named:
        assert isinstance(source.dataset, CsvSource)
        raise DataError(
            f"{source.dataset.file}: of {named:,} images that it names, or other files of its form, {len(table.images):,} are found below "
            f"{source.root.name}/ ({table.problem}); write their paths into the table, or move it elsewhere if the folders are the classes"
        )


def _check_unnamed(source: InferredSource, table: _Listed) -> None:
    """Raises DataError if a table names fewer images than lie beside these in folders of training images, which would be lost."""
    assert isinstance(source.dataset, CsvSource)
    if source.dataset.name_suffix:  # the others are versions of the same images
        return
    named = {image.content for image in table.images}
    stems = {PurePosixPath(image.path).stem for image in table.images}
    others = [path.relative_to(source.root) for path in images_below(source.root) if path not in named]
    # those of equal names are masks and other versions of the same images
    lost = [path for path in others if said_split(path.as_posix()) == "train" and path.stem not in stems]
    if len(lost) > len(table.images):
        folder = next(
            parent for parent in lost[0].parents if said_split(f"{parent.as_posix()}/") == "train"
        )  # the innermost
        while said_split(f"{folder.parent.as_posix()}/") == "train":
            folder = folder.parent
        raise DataError(
            f"{source.dataset.file}: names {len(table.images):,} images, and {len(lost):,} others lie in {folder.as_posix()}/, which says that they are for "
            f"training; to read those alone, run `tailfill init {shlex.quote(str(source.root / folder))}`; to read all, write them into the table, too"
        )


def _repeats_folders(source: InferredSource, table: _Listed) -> bool:
    """Returns whether a table has the folders' classes in a column, and the same classes, given otherwise, in all other columns.

    Such a table holds labels with noise for experiments. One that says patients and the like has more to say than the folders.
    """
    assert isinstance(source.dataset, CsvSource)
    groups, dataset = table.schema.groups, source.dataset
    alike = len({group.classes for group in groups}) == 1 and all(group.kind == "one" for group in groups)
    if len(groups) < 2 or not alike or dataset.group_by is not None:
        return False
    parents = [PurePosixPath(image.path).parent.name for image in table.images]
    for columns in table.schema.slices().values():
        labels = [int(np.argmax(image.labels[columns])) for image in table.images]
        pairs = set(zip(labels, parents, strict=True))
        if len(pairs) == len(set(labels)) == len(set(parents)):
            return True
    return False


def _without_table(folders: InferredSource, source: InferredSource, table: _Listed, why: str) -> InferredSource:
    """Returns the source of class folders, with a note that says why the table is left out, and how to read it alone if it can be."""
    assert isinstance(source.dataset, CsvSource)
    assert isinstance(folders.dataset, FolderSource)
    if source.dataset.file in folders.dataset.tables.values():
        return folders
    file = source.root / source.dataset.file
    below = all(isinstance(image.content, Path) and image.content.is_relative_to(file.parent) for image in table.images)
    alone = below and not table.problem and not source.dataset.more and file.suffix.lower() in TABLE_SUFFIXES
    command = f"; to read it in place of the folders, run `tailfill init {shlex.quote(str(file))}`" if alone else ""
    return replace(folders, notes=(*folders.notes, f"{shown(source.dataset.file)} is left out: {why}{command}"))
