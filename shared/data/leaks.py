"""Finds leaks, images that are in two splits, equal or nearly so, by their hashes; reports them, and drops them if asked to.

Two images are equal if their canonical pixels are. They are nearly equal if their perceptual hashes differ in at most `distance` of 256 bits
and the mean colours of a 4 x 4 grid in at most COLOUR_LEVELS on average (by the hash alone, a red and a blue plain square are the same).
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from shared.csv_cells import safe_cells
from shared.data.canonical import Canonical
from shared.data.source import SPLITS, SourceImage
from shared.errors import DataError

COLOUR_LEVELS = 8.0  # of 255: re-encoding, resizing and mild compression cause differences below 3
BLOCK = 1 << 18  # pairs compared at once: their hashes and colours take about 200 MB
HASH_BITS = 256
LEAST_PARTS = 4  # of at most 64 bits each


@dataclass(frozen=True)
class Likeness:
    """Says which of n images are similar: equal, or nearly so."""

    first: NDArray[np.int64]
    """Holds the position of the first image with the same pixels, `[n]`."""
    pairs: NDArray[np.int64]
    """Holds the pairs of nearly equal images, i < j, each the first with its pixels, `[p, 2]`."""
    distances: NDArray[np.int64]
    """Holds the number of bits in which the pair's perceptual hashes differ, `[p]`."""

    def clusters(self) -> NDArray[np.int64]:
        """Returns a number per image, `[n]`, the same for images that a chain of similar images connects."""
        n = len(self.first)
        ends = np.concatenate([self.pairs, np.stack([np.arange(n), self.first], axis=1)])
        graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(n, n))
        numbers: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
        return numbers


@dataclass(frozen=True)
class Leak:
    """Identifies an image that is similar to one of another split. Both are given by their positions in the set."""

    image: int
    """Identifies the image that `drop` removes."""
    split: str
    other: int
    """Identifies the image of `other_split` that is most like it."""
    other_split: str
    distance: int
    """Counts the differing bits of the perceptual hashes; 0 if the pixels are equal."""
    equal: bool
    """Says whether the pixels are equal."""


def find_alike(images: Sequence[Canonical], distance: int) -> Likeness:
    """Compares all images with all others; `distance` is in bits.

    Takes about linear time, and more if many images share parts of their hashes, as plain ones do.
    """
    seen: dict[bytes, int] = {}
    first = np.array([seen.setdefault(image.digest, i) for i, image in enumerate(images)], np.int64)
    firsts = np.unique(first)
    hashes = (
        np.stack([images[i].perceptual for i in firsts]).view(np.uint64) if len(firsts) else np.empty((0, 4), np.uint64)
    )
    colours = (
        np.stack([images[i].colours for i in firsts]).astype(np.int16) if len(firsts) else np.empty((0, 48), np.int16)
    )
    found = [np.empty((0, 2), np.int64)]
    for a, b in _candidates(hashes, distance):
        near = (_bits(hashes[a], hashes[b]) <= distance) & _same_colours(colours[a], colours[b])
        found.append(np.stack([a[near], b[near]], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return Likeness(first, firsts[pairs], _bits(hashes[pairs[:, 0]], hashes[pairs[:, 1]]))


def _bits(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Returns the number of bits, `[n]`, in which packed hashes `[n, 4]` differ."""
    bits: NDArray[np.int64] = np.bitwise_count(a ^ b).sum(axis=1, dtype=np.int64)
    return bits


def _same_colours(a: NDArray[np.int16], b: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Returns whether mean colours `[n, 48]` are nearly equal, `[n]`."""
    nearly: NDArray[np.bool_] = np.abs(a - b).mean(axis=1) <= COLOUR_LEVELS
    return nearly


def _candidates(hashes: NDArray[np.uint64], distance: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields pairs of rows i < j, `[p]` each, among which are all whose hashes `[n, 4]` differ in at most `distance` bits.

    The bits are split into more parts than may differ, so that such a pair has a part in common (the pigeonhole principle; Norouzi et al.
    2012, Fast search in Hamming space with multi-index hashing). Rows that have a part in common are neighbours if they are sorted by it.
    """
    parts = max(distance + 1, LEAST_PARTS)
    columns = np.random.default_rng(0).permutation(HASH_BITS)  # neighbouring bits of a hash depend on each other
    packed = hashes.view(np.uint8)
    for part in np.array_split(columns, parts):
        key = np.zeros(len(hashes), np.uint64)
        for column in part.tolist():
            key = key << np.uint64(1) | (packed[:, column // 8] >> (column % 8) & 1)
        order = np.argsort(key, kind="stable")
        key = key[order]
        place = np.flatnonzero(key[1:] == key[:-1])
        apart = 1
        while len(place):
            for start in range(0, len(place), BLOCK):
                block = place[start : start + BLOCK]
                yield order[block], order[block + apart]  # the order is stable, so the first is the smaller
            apart += 1
            place = place[place + apart < len(key)]
            place = place[key[place + apart] == key[place]]


def find_leaks(likeness: Likeness, split: NDArray[np.str_]) -> list[Leak]:
    """Returns a leak for each image of train that is similar to one in val or test, and for each of val that is similar to one in test, in order.

    `split` is `[n]`. If several images of the other split are similar, the leak names the nearest.
    """
    number = np.array([SPLITS.index(s) for s in split.tolist()], np.int64)
    members: dict[tuple[int, int], int] = {}
    for image, (first, part) in enumerate(zip(likeness.first.tolist(), number.tolist(), strict=True)):
        members.setdefault((first, part), image)
    near: dict[int, list[tuple[int, int]]] = {}
    for (a, b), bits in zip(likeness.pairs.tolist(), likeness.distances.tolist(), strict=True):
        near.setdefault(a, []).append((bits, b))
        near.setdefault(b, []).append((bits, a))
    leaks = []
    for image, (first, part) in enumerate(zip(likeness.first.tolist(), number.tolist(), strict=True)):
        for later in range(part + 1, len(SPLITS)):
            if (other := members.get((first, later))) is not None:
                leaks.append(Leak(image, SPLITS[part], other, SPLITS[later], 0, True))
                continue
            found = [(bits, members[rep, later]) for bits, rep in near.get(first, []) if (rep, later) in members]
            if found:
                bits, other = min(found)
                leaks.append(Leak(image, SPLITS[part], other, SPLITS[later], bits, False))
    return leaks


def without_leaks(
    leaks: Sequence[Leak], on_leak: Literal["fail", "drop", "keep"], images: Sequence[SourceImage]
) -> NDArray[np.int64]:
    """Returns the positions of the images that are kept, in order: all, or under `drop` those that do not leak.

    Raises DataError if there is a leak under `fail`.
    """
    if leaks and on_leak == "fail":
        leak = leaks[0]
        image, other = images[leak.image], images[leak.other]
        counts = ", ".join(f"{number} of {pair}" for pair, number in count_leaks(leaks).items())
        raise DataError(
            f"{image.where}: {image.path} of {leak.split} is {'equal' if leak.equal else 'nearly equal'} to {other.path} of "
            f"{leak.other_split} ({other.where}); {counts} leak in all; remove them, or set dataset.on_leak: drop"
        )
    dropped = {leak.image for leak in leaks} if on_leak == "drop" else set()
    return np.array([i for i in range(len(images)) if i not in dropped], np.int64)


def count_leaks(leaks: Sequence[Leak]) -> dict[str, int]:
    """Maps each pair of splits, such as `train/test`, to the number of images of the first that are similar to one of the second."""
    counts = Counter(f"{leak.split}/{leak.other_split}" for leak in leaks)
    return dict(sorted(counts.items()))


def write_leaks(leaks: Sequence[Leak], paths: Sequence[str], path: Path, dropped: bool) -> None:
    """Writes the reported pairs as a CSV, of which there is only the header if there are no leaks."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "split", "other_path", "other_split", "differing_bits", "equal_pixels", "dropped"])
        for leak in leaks:
            writer.writerow(
                safe_cells([
                    paths[leak.image], leak.split, paths[leak.other], leak.other_split, leak.distance, int(leak.equal), int(dropped),
                ])
            )  # fmt: skip
