"""How near generated images are to real ones: suspected copies of training images, and leaks of test images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.data.imageset import ImageSet, decode
from shared.data.sheet import contact_sheet
from shared.score.judges import FeatureSets, Images
from shared.score.neighbours import Neighbours, nearest, nearest_other, neighbour_ratio

PAIRS = 12  # shown of those that look most like copies
COPY_QUANTILE = 0.01  # nearer than this share of held-out real images are: a near copy


@dataclass(frozen=True)
class NearDuplicates:
    """How near the generated images are to real ones, and how near held-out real images are, for comparison."""

    train: Neighbours
    train_ratio: NDArray[np.float32]
    test: Neighbours
    test_ratio: NDArray[np.float32]
    reference: NDArray[np.float32]
    """Ratio of the validation images to the training images."""
    test_reference: NDArray[np.float32]
    """Ratio of the validation images to the test images."""

    def summary(self) -> dict[str, float | int]:
        """Medians, and how many generated images are nearer than all but 1 % of the validation images are."""
        return {
            "median_ratio": float(np.median(self.train_ratio)),
            "held_out_median_ratio": float(np.median(self.reference)),
            "near_copies": int((self.train_ratio < np.quantile(self.reference, COPY_QUANTILE)).sum()),
            "near_test_copies": int((self.test_ratio < np.quantile(self.test_reference, COPY_QUANTILE)).sum()),
        }


def measure_near_duplicates(features: FeatureSets) -> NearDuplicates:
    """Neighbours in feature space.

    A training image's own distance is that to its nearest other training image; a test image's is that to its nearest training image.
    """
    own = nearest_other(features.train).distance
    own_test = nearest(features.test, features.train).distance
    train, test = nearest(features.generated, features.train), nearest(features.generated, features.test)
    return NearDuplicates(
        train,
        neighbour_ratio(train, own),
        test,
        neighbour_ratio(test, own_test),
        neighbour_ratio(nearest(features.val, features.train), own),
        neighbour_ratio(nearest(features.val, features.test), own_test),
    )


def copies_sheet(images: Images, close: NearDuplicates) -> Image.Image:
    """The generated images nearest to a training image, each beside it."""
    pixels: list[NDArray[np.uint8]] = []
    captions: list[str] = []
    for row in np.argsort(close.train_ratio, kind="stable")[:PAIRS].tolist():
        pixels += [_thumbnail(images.generated, row), _thumbnail(images.train, int(close.train.index[row]))]
        captions += [f"generated\nratio {close.train_ratio[row]:.2f}", "nearest\nreal image"]
    return contact_sheet(pixels, captions, columns=6)


def _thumbnail(images: ImageSet, row: int) -> NDArray[np.uint8]:
    return decode(images.encoded[row], 96, images.paths[row])
