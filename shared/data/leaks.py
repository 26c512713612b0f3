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
BLOCK = 256  # rows compared at once with all others: 256 x 20,000 distances take 160 MB at 4 words each


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

    Takes linear time for `distance` 0, else quadratic time: about 5 s for 20,000 images on one core.
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
    pairs: list[NDArray[np.int64]] = [np.empty((0, 2), np.int64)]
    distances: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    for rows in _candidates(hashes, distance):
        for start in range(0, len(rows), BLOCK):
            block, rest = rows[start : start + BLOCK], rows[start:]
            bits = differing_bits(hashes[block], hashes[rest])
            a, b = np.nonzero(bits <= distance)
            keep = b > a  # rest begins with the block itself
            a, b = a[keep], b[keep]
            alike = np.abs(colours[block[a]] - colours[rest[b]]).mean(axis=1) <= COLOUR_LEVELS
            a, b = a[alike], b[alike]
            pairs.append(firsts[np.stack([block[a], rest[b]], axis=1)])
            distances.append(bits[a, b].astype(np.int64))
    return Likeness(first, np.concatenate(pairs), np.concatenate(distances))


def _candidates(hashes: NDArray[np.uint64], distance: int) -> Iterator[NDArray[np.int64]]:
    """Yields sets of rows within which all pairs are to be compared."""
    if distance:
        yield np.arange(len(hashes))
        return
    if len(hashes) == 0:
        return
    order = np.lexsort(hashes.T)
    changes = np.flatnonzero((np.diff(hashes[order], axis=0) != 0).any(axis=1)) + 1
    for rows in np.split(order, changes):
        if len(rows) > 1:
            yield np.sort(rows)


def differing_bits(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Returns the Hamming distances `[n, m]` of packed hashes `[n, 4]` and `[m, 4]`."""
    bits = np.zeros((len(a), len(b)), np.uint16)
    for word in range(a.shape[1]):
        bits += np.bitwise_count(a[:, None, word] ^ b[None, :, word])
    return bits


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
