"""Finds the classes that a new study fills with generated images, from the number of training images of each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import LabelSchema

BALANCED = 3.0
"""Says up to which ratio of its largest to its smallest class a group counts as balanced."""
LARGEST_SHARE = 3
"""Says that at most one of so many classes of a group is rare, and at least one may be."""


@dataclass(frozen=True)
class Tail:
    """Holds the rare classes of a data set."""

    fill_to: dict[str, int]
    """Maps each rare class, as `group/class`, to the median of its group, to which it is filled. The fewest images come first."""
    nothing: dict[str, str]
    """Maps each group without a rare class to the reason, as the end of a sentence."""


def find_tail(schema: LabelSchema, counts: NDArray[np.int64]) -> Tail:
    """Returns the rare classes for the training images per class, `[C]`; a class without images is not counted.

    A class is rare if it has under half of the median of its group, unless the largest class of the group has less than BALANCED times as many images as
    the smallest. At most a third of the classes of a group is rare: those with the fewest images.
    """
    found: list[tuple[int, str, int]] = []
    nothing = {}
    for name, columns in schema.slices().items():
        group = counts[columns]
        present = np.sort(group[group > 0])
        if len(present) < 2:
            nothing[name] = "fewer than two of its classes have images"
            continue
        median = int(np.median(present))
        if present[-1] < BALANCED * present[0]:
            nothing[name] = (
                f"it is balanced: its largest class has {present[-1] / present[0]:.1f} times as many images as its smallest"
            )
            continue
        below = [
            (int(n), schema.class_names[columns.start + i], median) for i, n in enumerate(group) if 0 < 2 * n < median
        ]
        if not below:
            nothing[name] = f"no class has under half of the median, which is {median:,} images"
        found += sorted(below)[: max(1, len(present) // LARGEST_SHARE)]
    return Tail({name: median for _, name, median in sorted(found)}, nothing)
