"""Infers which source a folder or a file is, for `tailfill init`, whose result a person reads over."""

from __future__ import annotations

from pathlib import Path

from shared.config.dataset import FolderSource
from shared.data.source import InferredSource
from shared.data.sources.class_folders import check_folders
from shared.data.sources.members import holds_images, is_image_name
from shared.data.sources.split_words import split_within
from shared.data.sources.table import SOURCES, StoredSource
from shared.data.sources.unread import check_file, unread_labels
from shared.errors import DataError
from shared.names import shown

PARTS = frozenset({"images", "annotations", "labels", "jpegimages"})
"""Names folders, in lower case, that hold a part of a data set with boxes."""


def infer_source(data: Path) -> InferredSource:
    """Asks each source of the table in turn; raises DataError that says what is missing if `data` is none of them, or may not be read."""
    try:
        return _inferred(data)
    except PermissionError as error:
        raise DataError(f"{data}: cannot be read ({error.strerror}); make it readable") from error


def _inferred(data: Path) -> InferredSource:
    if not (data.is_file() or data.is_dir()):
        raise DataError(
            f"{data}: not found; name a folder with a folder per class, or a table, a Parquet file or a NumPy archive"
        )
    try:
        str(data.resolve()).encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{shown(str(data))}: is no path in UTF-8, which a study file must be; rename the folder"
        ) from None
    if data.is_file() and is_image_name(data.name):
        raise DataError(f"{data}: is an image; name the folder of all images, or the table that names them")
    if data.is_file():
        check_file(data)
    for entry in SOURCES.values():
        if isinstance(entry, StoredSource) and entry.infer is not None and (found := entry.infer(data)) is not None:
            _check_labels(found)
            return found
    if data.is_dir() and holds_images(data) and (labels := unread_labels(data)) is not None:
        raise DataError(labels)
    raise DataError(
        f"{data}: holds neither images in class folders nor a CSV that names them; there must be a folder per class, or a table beside the images, "
        f"Parquet files, arrays or files of boxes (docs/data-and-weights.md){_above(data)}"
    )


def _check_labels(found: InferredSource) -> None:
    """Raises DataError if folders are no classes and a file that is not read may hold the labels."""
    if isinstance(found.dataset, FolderSource) and (labels := unread_labels(found.root)) is not None:
        check_folders(found.dataset, found.root, labels)


def _above(data: Path) -> str:
    """Returns a remedy if the name of a folder says that it is a part of a data set."""
    part = data.name.lower() in PARTS or split_within(data.name) is not None
    return f"; if {data.name}/ is a part of a data set, name the folder above it" if part and data.is_dir() else ""
