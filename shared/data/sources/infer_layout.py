"""Decides between tables and class folders if a data set has both, for `tailfill init`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from shared.config.dataset import CsvSource, FolderSource
from shared.data.problems import Problems
from shared.data.source import InferredSource
from shared.data.sources.class_folders import read_folder
from shared.data.sources.csv_table import read_csv
from shared.data.sources.infer_csv import infer_csv, labelled_tables, without_labels
from shared.data.sources.infer_folders import infer_folder
from shared.data.sources.infer_labels import words_of
from shared.data.sources.infer_tables import infer_tables, unused_numbers
from shared.data.sources.sheets import Sheet, read_sheets
from shared.data.sources.unread import check_images
from shared.errors import DataError

LEAST_SHARE = 0.5  # of the images in class folders, that a table must name to count more than the folders
CORNERS = frozenset({"xmin", "ymin", "xmax", "ymax"})
USABLE = 0.9  # of the images that a table names, that must be found


def infer_layout(data: Path) -> InferredSource | None:
    """Returns the source of a table, or of a folder with tables, class folders or both; None if it has neither.

    What says the splits counts more; else a table counts more than folders, if it names most of the images. Raises DataError that says what is missing if
    a table alone names no images or no labels, or if there are several that do not belong together.
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
            return infer_csv(data)
        return _without_lists(infer_folder(data, sheets) or infer_csv(data), sheets)
    source, named = found
    if isinstance(source.dataset, CsvSource) and not source.dataset.more and len(tables := labelled_tables(data)) == 1:
        source = infer_csv(data) or source if tables[0].name == source.dataset.file else source
    table_images, table_divided = _listed(source)
    try:
        folders = infer_folder(data, sheets)
        folder_images, divided = _listed(folders) if folders is not None else (0, False)
    except DataError:  # the table says what the folders leave open
        return source
    if folders is None or not isinstance(folders.dataset, FolderSource) or folders.dataset.by == "name":
        return source
    if table_images < USABLE * len(named) or (divided and not table_divided):
        return folders
    return source if (table_divided and not divided) or table_images >= LEAST_SHARE * folder_images else folders


def _without_lists(source: InferredSource | None, sheets: Sequence[Sheet]) -> InferredSource | None:
    """Returns a source that goes by no list of images, with a note if there is one of numbers that may be classes; raises DataError if it
    is nothing without that."""
    why = unused_numbers(sheets)
    if why is None:
        return source
    if source is None:
        raise DataError(why)
    if isinstance(source.dataset, FolderSource):
        try:
            read_folder(source.dataset, source.root, Problems("skip"))
        except DataError as error:
            raise DataError(why) from error
    return replace(source, notes=(*source.notes, why))


def _check_readable(root: Path, sheets: Sequence[Sheet]) -> None:
    """Raises DataError if the images are of a kind that is not read, or if all tables hold boxes."""
    check_images(root)
    boxes = [sheet for sheet in sheets if sheet.path is not None and {words_of(c) for c in sheet.others} >= CORNERS]
    if boxes and len(boxes) == len([sheet for sheet in sheets if sheet.path is not None]):
        raise DataError(
            f"{boxes[0].file}: holds boxes in a table, which are not read; export them as COCO, YOLO or Pascal VOC, e.g. by `datum convert`, then run "
            f"`tailfill init {shlex.quote(str(root))}` again"
        )


def _listed(source: InferredSource) -> tuple[int, bool]:
    """Returns how many images a source has, and whether it says their splits."""
    dataset, problems = source.dataset, Problems("skip")
    if isinstance(dataset, FolderSource):
        images = list(read_folder(dataset, source.root, problems).images)
    else:
        assert isinstance(dataset, CsvSource)
        images = list(read_csv(dataset, source.root, problems).images)
    return len(images), any(image.split is not None for image in images)
