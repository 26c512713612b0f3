"""Defines labels: groups of classes, and one array for the labels of all groups.

The labels of n images are an int8 array `[n, C]`, C the classes of all groups side by side: 1 if the image has the class, 0 if it does
not, -1 if that is unknown. A group of kind `one` has exactly one 1 or is unknown throughout; in a group of kind `any` the entries are
independent.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shared.config.base import Section

Labels = NDArray[np.int8]


class LabelGroup(Section):
    """Defines a question about each image, with its possible answers."""

    name: str
    kind: Literal["one", "any"] = "one"
    classes: tuple[str, ...]


class LabelSchema(Section):
    """Lists all groups, in the order of the columns of a label array."""

    groups: tuple[LabelGroup, ...]

    @property
    def width(self) -> int:
        """Returns C, the number of classes of all groups together."""
        return sum(len(group.classes) for group in self.groups)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Returns `group/class` for each of the C columns."""
        return tuple(f"{group.name}/{name}" for group in self.groups for name in group.classes)

    def slices(self) -> dict[str, slice]:
        """Maps each group to its columns."""
        slices, start = {}, 0
        for group in self.groups:
            slices[group.name] = slice(start, start + len(group.classes))
            start += len(group.classes)
        return slices

    def group(self, name: str) -> LabelGroup:
        """Returns the group of that name; raises KeyError if there is none."""
        for group in self.groups:
            if group.name == name:
                return group
        raise KeyError(name)

    def column(self, class_name: str) -> int:
        """Returns the column of `group/class`; raises ValueError if there is none."""
        return self.class_names.index(class_name)

    def group_of(self, column: int) -> LabelGroup:
        """Returns the group that a column belongs to; raises IndexError if there is none."""
        for name, columns in self.slices().items():
            if columns.start <= column < columns.stop:
                return self.group(name)
        raise IndexError(column)


def class_counts(labels: Labels) -> NDArray[np.int64]:
    """Returns the number of images per class, `[C]`."""
    counts: NDArray[np.int64] = (labels == 1).sum(axis=0)
    return counts


def class_weights(counts: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns w_i = 250 / (11 N_i) (paper, equation 1), `[C]`; 0 for a class without images."""
    return np.where(counts > 0, 250.0 / (11.0 * np.maximum(counts, 1)), 0.0)
