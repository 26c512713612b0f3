"""Describes how images look, whatever they show, by perceptual hashes and thumbnails, so that copies can be found.

It uses no network: one that was trained on the images or their labels knows them, and pooled features of one that was not miss copies that
are cut a little at the border (measured: docs/copies.md). Thumbnails that are aligned first miss none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from shared.data.canonical import mean_colours, perceptual_hash
from shared.data.imageset import ImageSet, decode
from shared.data.leaks import COLOUR_LEVELS
from shared.score.neighbours import Features, squared_distances
from shared.stop import StopSignal

COPY_BITS = 24
"""Limits the bits, of 256, in which the perceptual hashes of an image and its copy may differ. A copy saved as JPEG of quality 50, at three
quarters of its size or with noise differs in up to about 24. Of images that are not copies, the most similar ones differ in 36 in
Fashion-MNIST, and in 50 in DeepFashion."""
HASHED_SIDE = 64  # pixels, to which the hash resizes anyway
SIDE = 48  # pixels of a thumbnail that is cut
COMPARED_SIDE = 16  # pixels of one that is compared
CUT_SIDES = (46, 44, 42, 40, 38)  # pixels of the parts of a thumbnail that are compared too: up to a fifth is cut off
CHUNK = 1024  # images that are computed at once, for memory
SLAB = 65_536  # images whose parts are in memory at once, 200 MB
BLOCK = 256

Window = tuple[int, int, int]
"""Gives left, top and side, in pixels, of a square part of a thumbnail."""


def _windows() -> tuple[Window, ...]:
    corners = [(side, sorted({0, (SIDE - side) // 2, SIDE - side})) for side in CUT_SIDES]
    return ((0, 0, SIDE), *((left, top, side) for side, offsets in corners for left in offsets for top in offsets))


WINDOWS = _windows()
WHOLE = WINDOWS[0]


@dataclass(frozen=True)
class Appearances:
    """Describes how each of n images looks."""

    hashes: NDArray[np.uint64]
    """Holds the perceptual hashes of the images and of their mirror images, `[2, n, 4]`."""
    colours: NDArray[np.int16]
    """Holds the mean colours of a 4 x 4 grid, likewise, `[2, n, 48]`."""
    thumbnails: torch.Tensor
    """Holds the thumbnails, uint8 `[n, 3, 48, 48]`, mapped from a file without a name, so that they may be larger than the memory."""

    def __len__(self) -> int:
        return len(self.thumbnails)

    def take(self, rows: NDArray[np.int64]) -> Appearances:
        """Returns those of the images at these positions, in this order."""
        return Appearances(self.hashes[:, rows], self.colours[:, rows], self.thumbnails[torch.from_numpy(rows)])


@dataclass(frozen=True)
class Neighbours:
    """Holds the nearest image of a reference set for each image of another set."""

    index: NDArray[np.int64]
    """Holds the positions in the reference set, `[n]`."""
    distance: NDArray[np.float32]
    """Holds the Euclidean distances of the thumbnails, `[n]`."""


def appearances(images: ImageSet, stop: StopSignal) -> Appearances:
    """Decodes the images and returns how they look. Raises DataError if one cannot be decoded, and Stopped."""
    n = len(images)
    hashes, colours = np.empty((2, n, 32), np.uint8), np.empty((2, n, 48), np.int16)
    with tempfile.TemporaryFile() as file:
        # an empty file cannot be mapped
        thumbnails = np.memmap(file, np.uint8, "w+", shape=(max(n, 1), 3, SIDE, SIDE))[:n]
    for i, data in enumerate(images.encoded):
        stop.raise_if_set()
        image = Image.fromarray(decode(data, HASHED_SIDE, images.paths[i]))
        for side, shown in enumerate((image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))):
            hashes[side, i], colours[side, i] = perceptual_hash(shown), mean_colours(shown)
        small = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=3.0)
        thumbnails[i] = np.asarray(small).transpose(2, 0, 1)
    return Appearances(hashes.view(np.uint64), colours, torch.from_numpy(thumbnails))


def hash_matches(queries: Appearances, reference: Appearances) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the reference image of which each query, or its mirror image, is a copy by its hash, and the differing bits, `[n]` each.

    It is the one with the fewest differing bits, of those that differ in at most COPY_BITS and whose colours agree; -1 if there is none.
    """
    index, fewest = np.full(len(queries), -1, np.int64), np.full(len(queries), COPY_BITS + 1, np.int64)
    for side in range(2):
        for start in range(0, len(queries), BLOCK):
            rows = slice(start, start + BLOCK)
            bits = _differing_bits(queries.hashes[side, rows], reference.hashes[0]).astype(np.int64)
            a, b = np.nonzero(bits <= COPY_BITS)
            colours = np.abs(queries.colours[side, start + a] - reference.colours[0, b]).mean(axis=1)
            unlike = colours > COLOUR_LEVELS
            bits[a[unlike], b[unlike]] = COPY_BITS + 1
            nearest = bits.argmin(axis=1) if len(reference) else np.zeros(0, np.int64)
            least = bits[np.arange(len(nearest)), nearest]
            closer = start + np.flatnonzero(least < fewest[rows])
            index[closer], fewest[closer] = nearest[closer - start], least[closer - start]
    return index, fewest


def nearest(
    queries: Sequence[Appearances],
    reference: Appearances,
    stop: StopSignal,
    exempt: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> list[Neighbours]:
    """Returns for each set of queries the reference images to which they, or their mirror images, are nearest: to the whole, or to a part of at least 63 %.

    `exempt` has a number per query of all sets, -1 for none, and one per reference image: images with the same number are not compared.
    Raises Stopped.
    """
    ends = np.cumsum([len(each) for each in queries])
    distance, index = np.full(ends[-1], np.inf, np.float32), np.zeros(ends[-1], np.int64)
    shown = [
        np.concatenate([features(each.thumbnails) for each in queries]),
        np.concatenate([features(each.thumbnails.flip(3)) for each in queries]),
    ]
    for window in WINDOWS:
        for first, parts in slabs(reference, window):
            stop.raise_if_set()
            for points in shown:
                for start, block in squared_distances(points, parts):
                    rows = slice(start, start + len(block))
                    if exempt is not None:
                        same = exempt[0][rows, None] == exempt[1][None, first : first + len(parts)]
                        block[torch.from_numpy(same)] = torch.inf
                    least, position = block.min(dim=1)
                    closer = np.flatnonzero(least.numpy() < distance[rows])
                    distance[start + closer] = least.numpy()[closer]
                    index[start + closer] = first + position.numpy()[closer]
    sets = zip(np.split(index, ends[:-1]), np.split(np.sqrt(distance), ends[:-1]), strict=True)
    return [Neighbours(*each) for each in sets]


def slabs(images: Appearances, window: Window = WHOLE) -> Iterator[tuple[int, Features]]:
    """Yields the position of the first image and the features of all images, in parts that the memory holds."""
    for first in range(0, len(images), SLAB):
        yield first, features(images.thumbnails[first : first + SLAB], window)


def features(thumbnails: torch.Tensor, window: Window = WHOLE) -> Features:
    """Returns the part of each thumbnail within the window, as a row of 16 x 16 pixels in 0 to 1, `[n, 768]`."""
    left, top, side = window
    size = (COMPARED_SIDE, COMPARED_SIDE)
    parts = [
        functional.interpolate(
            chunk[:, :, top : top + side, left : left + side].float() / 255, size, mode="bilinear", antialias=True
        ).flatten(1)
        for chunk in torch.split(thumbnails, CHUNK)
    ]
    return torch.cat(parts).numpy()


def _differing_bits(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Returns the Hamming distances `[n, m]` of packed hashes `[n, 4]` and `[m, 4]`."""
    bits = np.zeros((len(a), len(b)), np.uint16)
    for word in range(a.shape[1]):
        bits += np.bitwise_count(a[:, None, word] ^ b[None, :, word])
    return bits
