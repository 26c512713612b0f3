"""Defines what a source of labelled images returns: an `ImageListing`, its schema and its images with their labels.

A reader lists the images and does not decode them: `prepare` decodes and splits them, finds leaks and makes the canonical form, in the same
way for all sources. It reports what is wrong with single images to `Problems`. `table.py` beside the readers has one entry per source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.config.dataset import Dataset
from shared.config.dataset import SplitName as SplitName
from shared.data.schema import Labels, LabelSchema

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


class StoredImage(Protocol):
    """Defines an encoded image that is stored within another file."""

    def read(self) -> bytes:
        """Returns the encoded bytes; raises BadImage if they cannot be read."""
        ...


@dataclass(frozen=True)
class SourceImage:
    """Holds one labelled image, not yet decoded."""

    path: str
    """Names the image: unique in the source, relative to the root, with forward slashes."""
    where: str
    """Names the file and line, or what corresponds to it, for errors about this image: `labels.csv line 12`."""
    content: Path | StoredImage | NDArray[np.uint8]
    """Holds the path of a file on local disk, an image within another file, or pixels: `[h, w, 3]` RGB or `[h, w]` grey, 0 to 255."""
    labels: Labels
    """Holds the labels `[C]`, int8: 1 if the image has the class, 0 if it does not, -1 if that is unknown."""
    split: SplitName | None = None
    """Names the split, if the source does. A source names it for all of its images or for none."""
    group: str | None = None
    """Names the product, the patient and the like: images of one group are kept in one split."""
    box: tuple[int, int, int, int] | None = None
    """Bounds the part that is cut out first: left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class ImageListing:
    """Lists the images of a data set."""

    schema: LabelSchema
    images: Iterable[SourceImage]
    """Yields the images in a fixed order; may draw or list them lazily, and is iterated once."""
    total: int
    """Counts the images, for the display of progress."""
    notes: tuple[str, ...] = ()
    """Tells readers of the report about the source."""
    class_where: Mapping[str, str] = field(default_factory=dict)
    """Maps each `group/class` to the file and line that name the class, for errors about it."""


@dataclass(frozen=True)
class InferredSource:
    """Describes a readable source that `infer_source` found in a folder or file."""

    dataset: Dataset
    """Holds the config; `init` writes the fields that are set."""
    root: Path
    """Points to the folder that `dataset.root` names."""
    comments: Mapping[str, str] = field(default_factory=dict)
    """Maps fields of `dataset` to the comments that `init` writes beside them, or on a line of its own if the field is None."""
    notes: tuple[str, ...] = ()
    """Says what was decided although it might be meant otherwise; `init` prints the lines and writes them into the study."""
