"""Reads a folder per class, or `train/`, `val/`, `test/` with a folder per class in each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shared.config.dataset import FolderSource
from shared.data.problems import Problems
from shared.data.schema import LabelGroup, LabelSchema
from shared.data.source import ImageListing, InferredSource, SourceImage, SplitName
from shared.data.sources.paths import IMAGE_SUFFIXES, PathCheck, existing_root
from shared.errors import DataError

SPLIT_NAMES: dict[str, SplitName] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
}  # fmt: skip
IGNORED = {
    "Thumbs.db",
    "desktop.ini",
    "__MACOSX",
}  # left behind by desktops; names that begin with a dot are ignored too


def infer_folder(data: Path) -> InferredSource | None:
    """Returns the source of a folder that holds class folders, None if it holds none."""
    if not holds_class_images(data):
        return None
    root = data.resolve()
    dataset = FolderSource(source="folder", root=str(root), group="label")
    return InferredSource(dataset, root, {"group": "the question that the folders' names answer"})


def holds_class_images(data: Path) -> bool:
    """Returns whether there are images in folders of `data`, at any depth."""
    return data.is_dir() and any(path.suffix.lower() in IMAGE_SUFFIXES for path in data.glob("*/**/*"))


def read_folder(config: FolderSource, root: Path, problems: Problems) -> ImageListing:
    """Lists the images of all class folders, at any depth; the classes are the folders' names, sorted.

    Every file in a class folder counts as an image. Raises DataError if there are fewer than two class folders.
    """
    root = existing_root(root)
    parts = split_folders(root, problems)
    folders = [(split, folder) for split, top in parts for folder in _folders(top, problems)]
    classes = tuple(sorted({folder.name for _, folder in folders}))
    if len(classes) < 2:
        raise DataError(
            f"{root.name}/: holds {len(classes)} class folders; there must be a folder per class (or train/, val/, test/ "
            "with a folder per class in each), at least two"
        )
    schema = LabelSchema(groups=(LabelGroup(name=config.group, classes=classes),))
    paths = PathCheck(root, problems)
    images = [
        image for split, folder in folders for image in _class_images(root, split, folder, classes, paths, problems)
    ]
    class_where = {f"{config.group}/{folder.name}": f"{folder.relative_to(root)}/" for _, folder in folders}
    return ImageListing(schema, images, len(images), class_where=class_where)


def split_folders(root: Path, problems: Problems) -> list[tuple[SplitName | None, Path]]:
    """Returns the folders that hold class folders, each with its split; the root without a split if it has no split folders."""
    folders = [name for name in _names(root) if (root / name).is_dir()]
    found = [(SPLIT_NAMES[name.lower()], root / name) for name in folders if name.lower() in SPLIT_NAMES]
    splits = [split for split, _ in found]
    # a data set of vehicles may have a class `train`: it is a split only if there is another one
    if "train" not in splits or len(set(splits)) < 2:
        return [(None, root)]
    if len(set(splits)) < len(splits):
        raise DataError(f"{root.name}/: two folders name one split, got {[f.name for _, f in found]}; keep one")
    for name in folders:
        if name.lower() not in SPLIT_NAMES:
            problems.add(
                "no split", f"{name}/", "is a folder beside the split folders; move its images into one of them"
            )
    return [*found]


def _folders(top: Path, problems: Problems) -> Iterator[Path]:
    for name in _names(top):
        if (top / name).is_dir():
            yield top / name
        elif Path(name).suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"}:
            problems.add("no class", f"{top.name}/{name}", "is an image outside the class folders; move it into one")


def _class_images(
    root: Path,
    split: SplitName | None,
    folder: Path,
    classes: tuple[str, ...],
    paths: PathCheck,
    problems: Problems,
) -> Iterator[SourceImage]:
    labels = np.zeros(len(classes), np.int8)
    labels[classes.index(folder.name)] = 1
    for file in _files(root, folder, problems):
        relative = file.relative_to(root).as_posix()
        if (checked := paths.check(relative, relative)) is not None:
            yield SourceImage(checked[0], relative, checked[1], labels, split)


def _files(root: Path, folder: Path, problems: Problems) -> Iterator[Path]:
    """Yields all files below a class folder, in order; linked folders are reported, not followed (they may leave the root, or form a loop)."""
    if folder.is_symlink():
        where = folder.relative_to(root).as_posix()
        problems.add("linked folder", where, "is a link to a folder; copy it here")
        return
    for name in _names(folder):
        if (folder / name).is_dir():
            yield from _files(root, folder / name, problems)
        else:
            yield folder / name


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith(".") and name not in IGNORED)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); make it readable") from error
