"""Near-duplicates among the generated images: suspected copies of training images, and leaks of test images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.data.imageset import ImageSet, decode
from shared.data.sheet import contact_sheet
from shared.score.judges import FeatureSets, Images
from shared.score.neighbours import Neighbours, nearest, nearest_other, neighbour_ratio

PAIRS = 12  # pairs that are shown, the most similar first
COPY_QUANTILE = 0.01  # a near copy has a smaller ratio than this quantile of held-out real images


@dataclass(frozen=True)
class NearDuplicates:
    """The nearest real image of each generated one, and for comparison the distances of held-out real images."""

    train: Neighbours
    train_ratio: NDArray[np.float32]
    test: Neighbours
    test_ratio: NDArray[np.float32]
    reference: NDArray[np.float32]
    """The neighbour ratio of the validation images among the training images."""
    test_reference: NDArray[np.float32]
    """The neighbour ratio of the validation images among the test images."""

    def summary(self) -> dict[str, float | int]:
        """Returns median ratios, and how many generated images are nearer to a real one than 99 % of the validation images are."""
        return {
            "median_ratio": float(np.median(self.train_ratio)),
            "held_out_median_ratio": float(np.median(self.reference)),
            "near_copies": int((self.train_ratio < np.quantile(self.reference, COPY_QUANTILE)).sum()),
            "near_test_copies": int((self.test_ratio < np.quantile(self.test_reference, COPY_QUANTILE)).sum()),
        }


def measure_near_duplicates(features: FeatureSets) -> NearDuplicates:
    """Finds the nearest real images in feature space.

    Ratios compare with a real image's own distance: that of a training image is to its nearest other training image, that of a test
    image to its nearest training image.
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


def copies_sheet(images: Images, near_duplicates: NearDuplicates) -> Image.Image:
    """Draws the generated images that are nearest to a training image, each beside that image."""
    pixels: list[NDArray[np.uint8]] = []
    captions: list[str] = []
    for row in np.argsort(near_duplicates.train_ratio, kind="stable")[:PAIRS].tolist():
        pixels += [_thumbnail(images.generated, row), _thumbnail(images.train, int(near_duplicates.train.index[row]))]
        captions += [f"generated\nratio {near_duplicates.train_ratio[row]:.2f}", "nearest\nreal image"]
    return contact_sheet(pixels, captions, columns=6)


def _thumbnail(images: ImageSet, row: int) -> NDArray[np.uint8]:
    return decode(images.encoded[row], 96, images.paths[row])
