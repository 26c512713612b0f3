"""Infers class names with which the names of image files begin, for `tailfill init`."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from shared.config.dataset import FolderSource
from shared.data.source import InferredSource
from shared.data.sources.file_names import name_of
from shared.data.sources.infer_contents import image_folders
from shared.data.sources.members import is_image_name, member_names
from shared.data.sources.split_words import SPLIT_WORDS, split_of

NO_CLASS = frozenset({
    "img", "image", "images", "dsc", "dscn", "dscf", "dcim", "pict", "pxl", "mvi", "sam", "gopr", "dji", "cimg", "picture", "photo", "screenshot", "scan",
    "frame", "file", "untitled", "snapshot", "mask", "masks", "label", "gt", *SPLIT_WORDS,
})  # fmt: skip
"""Lists words with which cameras and programs, and the names of masks and splits begin, so that they are no classes."""


def infer_file_names(root: Path) -> InferredSource | None:
    """Returns the source of images whose names begin with few words that repeat, in one folder or in split folders; None if they do not."""
    for folder in (root, *(each for each in image_folders(root) if split_of(each.name) in ("train", None))):
        names = [name_of(name) for name in member_names(folder) if is_image_name(name)]
        classes = Counter(name for name in names if name is not None)
        if None in names or not 2 <= len(classes) <= len(names) // 3 or any(map(_is_no_class, classes)):
            continue
        fields = {"folder": folder.relative_to(root).as_posix()} if folder != root else {}
        dataset = FolderSource.model_validate(
            {"source": "folder", "root": str(root), "group": "label", "by": "name", **fields}
        )
        comments = {"by": "the files' names begin with their class", "group": "the question that the names answer"}
        return InferredSource(dataset, root, comments)
    return None


def _is_no_class(name: str) -> bool:
    """Returns whether the beginning of a file's name is one that cameras and programs give."""
    return set(re.split(r"[\W_0-9]+", name.lower())) - {""} <= NO_CLASS
