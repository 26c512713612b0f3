"""Splitting images into parts so that every class of every label group keeps its share in each.

Iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011) over all label groups jointly, the rarest class first. What is dealt out are
units: a single image, or all images of one product or patient. For one group of kind `one` this is plain stratification.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from shared.config.dataset import Split
from shared.data.schema import Labels


def stratify(labels: Labels, units: NDArray[np.int64], shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """The part, 0 to len(shares) - 1, that each image goes to, `[n]`.

    `labels` is `[n, C]`; images with the same number in `units` `[n]` stay together; `shares` add up to 1. Where a class is in at least as
    many units as there are parts, each part is meant to get one. The same arguments give the same parts.
    """
    numbers, unit = np.unique(units, return_inverse=True)
    counts = np.zeros((len(numbers), labels.shape[1]), np.int64)
    np.add.at(counts, unit, (labels == 1).astype(np.int64))
    sizes = np.bincount(unit, minlength=len(numbers))
    wanted = np.outer(shares, counts.sum(axis=0))
    enough = (counts > 0).sum(axis=0) >= len(shares)
    wanted[:, enough] = np.maximum(wanted[:, enough], 1)
    largest = int(np.argmax(shares))  # gives what the others were raised by
    wanted[largest] = counts.sum(axis=0) - np.delete(wanted, largest, axis=0).sum(axis=0)
    dealer = _Dealer(counts, sizes, wanted, np.array(shares) * len(labels), np.random.default_rng(seed))
    return dealer.deal()[unit]


class _Dealer:
    """Deals units to parts; what each part still wants is lowered with each unit that it gets."""

    def __init__(
        self,
        counts: NDArray[np.int64],
        sizes: NDArray[np.int64],
        wanted: NDArray[np.float64],
        wanted_sizes: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> None:
        self._counts, self._sizes, self._wanted, self._wanted_sizes = counts, sizes, wanted, wanted_sizes
        # large units first, as small ones can still mend what they upset; equal ones in random order
        order = rng.permutation(len(sizes))
        self._order = order[np.argsort(-sizes[order], kind="stable")]
        self._ties = rng.permutation(len(wanted))
        self._part = np.full(len(sizes), -1, np.int64)

    def deal(self) -> NDArray[np.int64]:
        """The part of each unit, `[u]`."""
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
        """To the part that wants it most; of several, to the one that lacks most images."""
        part = int(np.lexsort((self._ties, self._wanted_sizes, wanted))[-1])
        self._part[unit] = part
        self._wanted[part] -= self._counts[unit]
        self._wanted_sizes[part] -= self._sizes[unit]


def assign_splits(
    given: NDArray[np.str_], labels: Labels, units: NDArray[np.int64], config: Split, seed: int
) -> tuple[NDArray[np.str_], tuple[str, ...]]:
    """The split of each image, `[n]`, and notes on what was decided.

    `given` is what the source says, `[n]`, blank where it says nothing. Without any: train, val and test are carved by `config`. With val but
    no test, val becomes the test split. Without val (then), a stratified part of train becomes val.
    """
    split, notes = given.astype("<U5"), []
    if not np.isin(split, ["val", "test"]).any():
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


def join_units(groups: Sequence[str | None], clusters: NDArray[np.int64]) -> NDArray[np.int64]:
    """A number for each image, `[n]`, the same for images that must stay together: of one group, or of one cluster, or both by a chain."""
    n = len(groups)
    first: dict[str, int] = {}
    same_group = [i if group is None else first.setdefault(group, i) for i, group in enumerate(groups)]
    _, same_cluster, inverse = np.unique(clusters, return_index=True, return_inverse=True)
    rows = np.concatenate([np.arange(n), np.arange(n)])
    columns = np.concatenate([np.array(same_group, np.int64), same_cluster[inverse]])
    graph = coo_array((np.ones(2 * n, np.int8), (rows, columns)), shape=(n, n))
    units: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return units
