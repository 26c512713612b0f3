"""Finds near-duplicates among the generated images: copies of training images, and leaks of validation and test images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.data.imageset import ImageSet, decode
from shared.data.sheet import contact_sheet
from shared.score.appearance import Appearances, Neighbours, appearances, features, hash_matches, nearest, slabs
from shared.score.neighbours import kth_of, squares_of_nearest
from shared.stop import StopSignal

PAIRS = 12  # pairs that are shown, copies by their hash first, then the nearest
DENSITY_NEIGHBOURS = 5
"""Sets the rank of the neighbour's own neighbour: a distance is compared with the distance between these two, since in a dense part of the
data set honest images are near others, too (like the adaptive threshold of Carlini et al. 2023, Extracting Training Data from Diffusion
Models)."""
HELD_OUT = 2000
"""Limits the validation images with which generated ones are compared, as each is compared with all training images; 20 are a hundredth of them."""
COPY_QUANTILE = 0.01  # what the summary counts as near, as `accept.copy_quantile` does by default


@dataclass(frozen=True)
class Images:
    """Holds the image sets that scoring reads."""

    train: ImageSet
    val: ImageSet
    test: ImageSet
    generated: ImageSet


@dataclass(frozen=True)
class NearDuplicates:
    """Holds the real images that each generated image resembles most, `[n]` each, and for comparison how near held-out real images are."""

    copy_of: NDArray[np.int64]
    """Identifies the training image of which it is a copy by its perceptual hash; -1 if there is none."""
    copy_bits: NDArray[np.int64]
    """Counts the bits in which their hashes differ."""
    leak_of: list[str | None]
    """Gives the path of the validation or test image of which it is a copy by its perceptual hash."""
    train: Neighbours
    """Holds the nearest training image, apart from the one that an image was made from and others of the same product or patient."""
    train_ratio: NDArray[np.float32]
    """Gives the distance to it, divided by its own distance to its fifth nearest training image."""
    as_near: NDArray[np.float32]
    """Gives the share of the compared validation images whose ratio is as small or smaller."""
    test: Neighbours
    """Holds the nearest test image."""
    test_ratio: NDArray[np.float32]
    test_as_near: NDArray[np.float32]
    """Gives the share of the compared validation images that are as near to a test image, or nearer."""
    held_out: NDArray[np.float32]
    """Holds the ratio of the compared validation images among the training images, `[m]`."""

    def summary(self) -> dict[str, float | int]:
        """Returns median ratios, and how many generated images are copies, leaks, and nearer to a real one than real images are."""
        return {
            "median_ratio": float(np.median(self.train_ratio)),
            "held_out_median_ratio": float(np.median(self.held_out)),
            "copies": int((self.copy_of >= 0).sum()),
            "leaks": sum(path is not None for path in self.leak_of),
            "near_copies": int((self.as_near < COPY_QUANTILE).sum()),
            "near_test_copies": int((self.test_as_near < COPY_QUANTILE).sum()),
        }


def find_near_duplicates(images: Images, made_from: NDArray[np.int64], stop: StopSignal) -> NearDuplicates:
    """Compares the generated images with all real ones.

    `made_from` is the training row that an image was made from, `[n]`, -1 for none; the image is expected to be near that one. Raises Stopped.
    """
    train, val, test, generated = (
        appearances(each, stop) for each in (images.train, images.val, images.test, images.generated)
    )
    copy_of, copy_bits = hash_matches(generated, train)
    unit = images.train.unit_numbers()
    # spread over all of them, whatever their order
    compared = val.take(np.unique(np.linspace(0, len(val) - 1, min(len(val), HELD_OUT)).astype(np.int64)))
    exempt = np.concatenate([np.where(made_from >= 0, unit[np.maximum(made_from, 0)], -1), np.full(len(compared), -1)])
    near_train, held_train = nearest((generated, compared), train, stop, (exempt, unit))
    near_test, held_test = nearest((generated, compared), test, stop)
    train_ratio, held_out = _ratios(train, train, near_train, held_train)
    test_ratio, held_out_test = _ratios(test, train, near_test, held_test)
    return NearDuplicates(
        copy_of,
        copy_bits,
        _leaks(images, val, test, generated),
        near_train,
        train_ratio,
        _share_as_small(train_ratio, held_out),
        near_test,
        test_ratio,
        _share_as_small(test_ratio, held_out_test),
        held_out,
    )


def copies_sheet(images: Images, found: NearDuplicates) -> Image.Image:
    """Draws the copies among the generated images and then those that are nearest to a training image, each beside that image."""
    copied = found.copy_of >= 0
    # by the bits of copies first, then by the ratio of the others
    order = np.lexsort((found.train_ratio, np.where(copied, found.copy_bits, 0), ~copied))
    pixels: list[NDArray[np.uint8]] = []
    captions: list[str] = []
    for row in order[:PAIRS].tolist():
        real = int(found.copy_of[row] if copied[row] else found.train.index[row])
        pixels += [_thumbnail(images.generated, row), _thumbnail(images.train, real)]
        how = f"copy: {found.copy_bits[row]} bits" if copied[row] else f"ratio {found.train_ratio[row]:.2f}"
        captions += [f"generated\n{how}", "nearest\nreal image"]
    return contact_sheet(pixels, captions, columns=6)


def _ratios(
    images: Appearances, train: Appearances, near: Neighbours, held: Neighbours
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns the distances to the nearest of `images`, divided by its own distance to its fifth nearest training image other than itself.

    If images are equal, their own distance counts as a thousandth of the median, so that ratios stay finite.
    """
    rows, which = np.unique(np.concatenate([near.index, held.index]), return_inverse=True)
    points = features(images.take(rows).thumbnails)
    squares = [
        squares_of_nearest(points, part, DENSITY_NEIGHBOURS, rows - first if images is train else None)
        for first, part in slabs(train)
    ]
    found = kth_of(squares, DENSITY_NEIGHBOURS)
    own = np.maximum(found, max(float(np.median(found)) * 1e-3, 1e-12)).astype(np.float32)
    ratio = (np.concatenate([near.distance, held.distance]) / own[which]).astype(np.float32)
    return ratio[: len(near.index)], ratio[len(near.index) :]


def _share_as_small(values: NDArray[np.float32], held_out: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the share of held-out values that are at most as large, `[n]`."""
    return (np.searchsorted(np.sort(held_out), values, side="right") / len(held_out)).astype(np.float32)


def _leaks(images: Images, val: Appearances, test: Appearances, generated: Appearances) -> list[str | None]:
    """Returns the path of the test image, or else of the validation image, of which each generated image is a copy."""
    in_test, in_val = hash_matches(generated, test)[0].tolist(), hash_matches(generated, val)[0].tolist()
    return [
        images.test.paths[t] if t >= 0 else images.val.paths[v] if v >= 0 else None
        for t, v in zip(in_test, in_val, strict=True)
    ]


def _thumbnail(images: ImageSet, row: int) -> NDArray[np.uint8]:
    return decode(images.encoded[row], 96, images.paths[row])
