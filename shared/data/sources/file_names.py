"""Reads images whose names begin with their class, such as `cat.0.jpg`."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from shared.config.dataset import FolderSource
from shared.data.problems import Problems
from shared.data.schema import LabelGroup, LabelSchema
from shared.data.source import ImageListing, SourceImage
from shared.data.sources.members import images_below
from shared.data.sources.paths import PathCheck
from shared.data.sources.split_words import split_of
from shared.errors import ConfigError, DataError
from shared.names import path_below


def name_of(path: str) -> str | None:
    """Returns what a file's name has before its number; None if it has no number, or no letter before it."""
    stem = PurePosixPath(path).stem.removesuffix(")")
    before = stem.rstrip("0123456789")
    name = before.strip("-_. (")
    return name if before != stem and any(map(str.isalpha, name)) else None


def read_named(config: FolderSource, root: Path, problems: Problems) -> ImageListing:
    """Lists the images below the folder, each with the class that its name begins with; a folder that is named as a split holds it.

    Raises DataError if there are fewer than two classes.
    """
    folder = path_below(root, config.folder, "dataset.folder", ConfigError) if config.folder != "." else root
    skip = {name.lower() for name in config.skip}
    paths = PathCheck(root, problems)
    found = []
    for path in sorted(path.relative_to(root).as_posix() for path in images_below(folder)):
        parts = PurePosixPath(path).relative_to(config.folder).parts
        if any(part.lower() in skip for part in parts):
            continue
        if (name := name_of(path)) is None:
            problems.add("no class", path, "its name has no class before a number; rename it")
        elif (checked := paths.check(path, path)) is not None:
            split = next((split for part in parts[:-1] if (split := split_of(part)) is not None), None)
            found.append((checked, config.names.get(name, name), split))
    classes = tuple(sorted({name for _, name, _ in found}))
    if len(classes) < 2:
        raise DataError(f"{folder.name}/: the images' names begin with {list(classes)}; there must be two classes")
    rows = dict(zip(classes, np.eye(len(classes), dtype=np.int8), strict=True))
    whole = len({split for _, _, split in found}) < 2 or any(split is None for _, _, split in found)
    images = [SourceImage(c[0], c[0], c[1], rows[name], None if whole else split) for c, name, split in found]
    where = {f"{config.group}/{name}": f"the names of the files in {folder.name}/" for name in classes}
    schema = LabelSchema(groups=(LabelGroup(name=config.group, classes=classes),))
    return ImageListing(schema, images, len(images), class_where=where)
