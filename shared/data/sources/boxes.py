"""Cuts boxes out of images: each box becomes an image of its own, for the sources whose labels are boxes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.config.dataset import BoxSource
from shared.data.problems import Problems
from shared.data.schema import LabelGroup, Labels, LabelSchema
from shared.data.source import ImageListing, SourceImage, SplitName
from shared.errors import DataError

BOX_COMMENTS = {
    "padding": "of the box's longer side, added on each side",
    "least_size": "px; boxes whose shorter side is smaller are left out",
}
"""Maps the settings of a box to the comments that `init` writes beside them."""
BOX_SETTINGS = {name: BoxSource.model_fields[name].default for name in BOX_COMMENTS}
"""Holds their values, which `init` writes so that they are seen."""
Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Box:
    """Holds one labelled box, or the label of a whole image."""

    image: str
    """Gives the path of the image, relative to the root."""
    file: Path
    where: str
    """Names the file and line, or the annotation, for errors."""
    name: str
    """Names the class."""
    corners: Corners | None
    """Gives left, top, width and height in pixels; None stands for the whole image."""
    split: SplitName | None
    unit: str
    """Names what is kept in one split: the image, or what its entry says."""


def box_listing(
    config: BoxSource, root: Path, names: Sequence[str], boxes: Iterable[Box], where: str, problems: Problems
) -> ImageListing:
    """Lists an image per box, without the boxes that are too small and the classes that are left without any.

    `names` are all classes in order, and `where` is the file that names them. Raises DataError if fewer than two classes are left,
    or what the problems say if they made it so.
    """
    every = list(boxes)
    kept = [box for box in every if box.corners is None or min(box.corners[2:]) >= config.least_size]
    found = {box.name for box in kept}
    classes = tuple(name for name in dict.fromkeys(names) if name in found)
    small = len(every) - len(kept)
    if len(classes) < 2:
        problems.raise_if_failing()  # they say why
        why = f"; the first fault: {problems.lines[0]}" if problems.lines else ""
        raise DataError(
            f"{where}: {len(kept)} boxes of {len(classes)} classes are usable, and {small} are smaller than {config.least_size} pixels "
            f"(dataset.least_size), in the images below {root.name}/; there must be two classes with boxes{why}"
        )
    schema = LabelSchema(groups=(LabelGroup(name=config.group, classes=classes),))
    notes = []
    if small:
        notes.append(
            f"{small} of {len(every)} boxes were left out: their shorter side is under {config.least_size} pixels."
        )
    if empty := [name for name in dict.fromkeys(names) if name not in found]:
        notes.append(
            f"These classes have no box, and were left out: {', '.join(empty[:20])}{' …' if len(empty) > 20 else ''}."
        )
    images = _images(config, classes, kept)
    return ImageListing(
        schema, images, len(images), notes=tuple(notes), class_where=dict.fromkeys(schema.class_names, where)
    )


def _images(config: BoxSource, classes: Sequence[str], boxes: Sequence[Box]) -> list[SourceImage]:
    rows = dict(zip(classes, np.eye(len(classes), dtype=np.int8), strict=True))
    seen: Counter[str] = Counter()
    images = []
    for box in boxes:
        seen[box.image] += 1
        images.append(_image(box, seen[box.image], rows[box.name], config.padding))
    return images


def _image(box: Box, number: int, labels: Labels, padding: float) -> SourceImage:
    if box.corners is None:
        return SourceImage(box.image, box.where, box.file, labels, box.split, box.unit)
    return SourceImage(
        f"{box.image}/{number}", box.where, box.file, labels, box.split, box.unit, padded(box.corners, padding)
    )


def is_cut_out(path: str) -> bool:
    """Returns whether an image of `box_listing`, by its path, was cut out of another one; images that are labelled as a whole are not."""
    return path.rpartition("/")[2].isdecimal()


def padded(corners: Corners, padding: float) -> tuple[int, int, int, int]:
    """Returns left, top, right and bottom in whole pixels, each moved out by a share of the longer side; left and top are at least 0."""
    left, top, width, height = corners
    margin = padding * max(width, height)
    return (
        max(0, math.floor(left - margin)),
        max(0, math.floor(top - margin)),
        math.ceil(left + width + margin),
        math.ceil(top + height + margin),
    )
