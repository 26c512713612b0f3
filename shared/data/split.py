"""Splits images into parts so that every class of every label group keeps its share in each.

This is iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011) over all label groups jointly, the rarest class first. It assigns
units: single images, or all images of one product or patient. For one group of kind `one` this is plain stratification.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from shared.config.dataset import Fold, Split
from shared.data.schema import Labels
from shared.errors import DataError


def stratify(labels: Labels, units: NDArray[np.int64], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Returns the part, 0 to len(shares) - 1, that each image is assigned to, `[n]`.

    `labels` is `[n, C]`; images with the same number in `units` `[n]` stay together; `shares` add up to 1. If a class is in at least as
    many units as there are parts, each part should get one. The same arguments give the same parts.
    """
    numbers, unit = np.unique(units, return_inverse=True)
    counts = np.zeros((len(numbers), labels.shape[1]), np.int64)
    np.add.at(counts, unit, (labels == 1).astype(np.int64))
    sizes = np.bincount(unit, minlength=len(numbers))
    wanted = np.outer(shares, counts.sum(axis=0))
    enough = (counts > 0).sum(axis=0) >= len(shares)
    wanted[:, enough] = np.maximum(wanted[:, enough], 1)
    largest = int(np.argmax(shares))  # is lowered by as much as the others were raised
    wanted[largest] = counts.sum(axis=0) - np.delete(wanted, largest, axis=0).sum(axis=0)
    assignment = _Assignment(counts, sizes, wanted, np.array(shares) * len(labels), np.random.default_rng(seed))
    return assignment.parts()[unit]


class _Assignment:
    """Assigns units to parts; what each part still lacks is lowered with each unit that it gets."""

    def __init__(
        self,
        counts: NDArray[np.int64],
        sizes: NDArray[np.int64],
        wanted: NDArray[np.float64],
        wanted_sizes: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> None:
        self._counts, self._sizes, self._wanted, self._wanted_sizes = counts, sizes, wanted, wanted_sizes
        # large units first, as small ones can still even out what they distort; equal ones in random order
        order = rng.permutation(len(sizes))
        self._order = order[np.argsort(-sizes[order], kind="stable")]
        self._ties = rng.permutation(len(wanted))
        self._part = np.full(len(sizes), -1, np.int64)

    def parts(self) -> NDArray[np.int64]:
        """Returns the part of each unit, `[u]`."""
        left = (self._counts > 0).sum(axis=0)
        while (left > 0).any():
            rarest = int(np.where(left > 0, left, np.iinfo(np.int64).max).argmin())
            for unit in self._order:
                if self._part[unit] < 0 and self._counts[unit, rarest] > 0:
                    self._give(unit, self._wanted[:, rarest])
                    left -= self._counts[unit] > 0
        for unit in self._order:
            if self._part[unit] < 0:
                self._give(unit, self._wanted_sizes)
        return self._part

    def _give(self, unit: int, wanted: NDArray[np.float64]) -> None:
        """Assigns the unit to the part that lacks it most; of several, to the one that lacks most images."""
        part = int(np.lexsort((self._ties, self._wanted_sizes, wanted))[-1])
        self._part[unit] = part
        self._wanted[part] -= self._counts[unit]
        self._wanted_sizes[part] -= self._sizes[unit]


def assign_splits(
    given: NDArray[np.str_],
    labels: Labels,
    units: NDArray[np.int64],
    config: Split,
    seed: int,
    fold: Fold | None = None,
) -> tuple[NDArray[np.str_], tuple[str, ...]]:
    """Returns the split of each image, `[n]`, and notes on what was decided.

    `given` `[n]` is what the source says, blank if it says nothing. If it names neither val nor test, the images are split by `config`. If it
    names val and no test, val becomes the test split. If there is no val then, a stratified part of train becomes val. With a `fold`, that fold of
    all images is the test split. Raises DataError if the source names val or test then.
    """
    split, notes = given.astype("<U5"), []
    names_some = bool(np.isin(split, ["val", "test"]).any())
    if fold is not None:
        if names_some:
            named = " and ".join(name for name in ("val", "test") if (split == name).any())
            raise DataError(
                f"dataset.split.test: must be a share such as 0.15 for a source that names its {named} images, got folds; set it, and "
                "the repetitions test on that split"
            )
        return _fold_splits(labels, units, config, seed, fold)
    assert config.test != "folds"
    if not names_some:
        parts = stratify(labels, units, (1 - config.val - config.test, config.val, config.test), seed)
        return np.array(["train", "val", "test"])[parts], (
            "The images were split here, stratified over all label groups.",
        )
    if not (split == "test").any():
        split[split == "val"] = "test"
        notes.append("The source has no labelled test split: its val is the test split.")
    if not (split == "val").any():
        rows = np.flatnonzero(split == "train")
        parts = stratify(labels[rows], units[rows], (1 - config.val, config.val), seed)
        split[rows[parts == 1]] = "val"
        notes.append(
            f"val is a stratified part of the source's train ({(split == 'val').sum():,} of {len(rows):,} images)."
        )
    return split, tuple(notes)


def units_for_folds(folds: int) -> int:
    """Returns how many units of a class it takes for each of so many test folds, and for train and val beside them, to have one."""
    return folds + 2


def _fold_splits(
    labels: Labels, units: NDArray[np.int64], config: Split, seed: int, fold: Fold
) -> tuple[NDArray[np.str_], tuple[str, ...]]:
    """Returns the splits with one of the stratified folds of all images as the test split, and a stratified part of the others as val."""
    split = np.full(len(labels), "train", "<U5")
    rest = stratify(labels, units, (1 / fold.count,) * fold.count, seed) != fold.number
    rows = np.flatnonzero(rest)
    split[~rest] = "test"
    split[rows[stratify(labels[rows], units[rows], (1 - config.val, config.val), seed) == 1]] = "val"
    return split, (
        f"The images were divided here into {fold.count} folds, stratified over all label groups, and each repetition tests on its own.",
    )


def join_units(groups: Sequence[str | None], clusters: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns a number per image, `[n]`, the same for images that a chain of common groups or common clusters `[n]` connects."""
    n = len(groups)
    first: dict[str, int] = {}
    same_group = [i if group is None else first.setdefault(group, i) for i, group in enumerate(groups)]
    _, same_cluster, inverse = np.unique(clusters, return_index=True, return_inverse=True)
    rows = np.concatenate([np.arange(n), np.arange(n)])
    columns = np.concatenate([np.array(same_group, np.int64), same_cluster[inverse]])
    graph = coo_array((np.ones(2 * n, np.int8), (rows, columns)), shape=(n, n))
    units: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return units
