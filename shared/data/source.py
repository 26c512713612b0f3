"""What every source of labelled images hands to `prepare`: a schema, and its images with labels, one after the other.

A reader is a function that returns a `Source`; it lists images and does not decode them (decoding, splitting, the search for
leaks and the canonical form are `prepare`'s, the same for all sources). What is wrong with the input goes to `Problems`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import Labels, LabelSchema

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class SourceImage:
    """One labelled image, not yet decoded."""

    path: str
    """Its name: unique in the source, relative to the root, with forward slashes."""
    where: str
    """File and line (or what stands for it) that an error about this image names: `labels.csv line 12`."""
    content: Path | NDArray[np.uint8]
    """A file on local disk, or pixels: `[h, w, 3]` RGB or `[h, w]` grey."""
    labels: Labels
    """`[C]` int8: 1 has the class, 0 has not, -1 unknown."""
    split: SplitName | None = None
    """Where the source says it; all images of a source say it, or none does."""
    group: str | None = None
    """Images of one group (a product, a patient) stay in one split."""
    box: tuple[int, int, int, int] | None = None
    """Left, top, right, bottom in pixels: what is cut out first."""


@dataclass(frozen=True)
class Source:
    """A readable data set."""

    schema: LabelSchema
    images: Iterable[SourceImage]
    """In a fixed order; may be drawn or listed lazily, and is gone through once."""
    total: int
    """How many images there are (for progress)."""
    notes: tuple[str, ...] = ()
    """What a reader of the report should know of the source."""
    class_where: Mapping[str, str] = field(default_factory=dict)
    """`group/class` → file and line that name the class, for errors about it."""
