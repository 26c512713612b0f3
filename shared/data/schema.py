"""Labels: groups of classes, and one array form for all of them.

The labels of n images are an int8 array `[n, C]`, C the classes of all groups side by side: 1 the image has the class, 0 it has
not, -1 unknown. A group of kind `one` has exactly one 1 or is unknown throughout; of kind `any` each entry stands for itself.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shared.config.base import Section

Labels = NDArray[np.int8]


class LabelGroup(Section):
    """A question asked of each image, and its possible answers."""

    name: str
    kind: Literal["one", "any"] = "one"
    classes: tuple[str, ...]


class LabelSchema(Section):
    """All groups, in the order of the columns of a label array."""

    groups: tuple[LabelGroup, ...]

    @property
    def width(self) -> int:
        """C, the number of classes of all groups together."""
        return sum(len(group.classes) for group in self.groups)

    @property
    def class_names(self) -> tuple[str, ...]:
        """`group/class` for each of the C columns."""
        return tuple(f"{group.name}/{name}" for group in self.groups for name in group.classes)

    def slices(self) -> dict[str, slice]:
        """Each group's columns."""
        slices, start = {}, 0
        for group in self.groups:
            slices[group.name] = slice(start, start + len(group.classes))
            start += len(group.classes)
        return slices

    def group(self, name: str) -> LabelGroup:
        """The group of that name; raises KeyError."""
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def column(self, class_name: str) -> int:
        """Column of `group/class`; raises ValueError."""
        return self.class_names.index(class_name)

    def group_of(self, column: int) -> LabelGroup:
        """The group that a column belongs to."""
        for name, columns in self.slices().items():
            if columns.start <= column < columns.stop:
                return self.group(name)
        raise IndexError(column)


def class_counts(labels: Labels) -> NDArray[np.int64]:
    """Images of each class, `[C]`."""
    counts: NDArray[np.int64] = (labels == 1).sum(axis=0)
    return counts


def class_weights(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """w_i = 250 / (11 N_i) (paper, equation 1), `[C]`; 0 for a class without images."""
    return np.where(counts > 0, 250.0 / (11.0 * np.maximum(counts, 1)), 0.0)
