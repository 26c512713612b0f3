"""Finds the classes that look most like another one to a frozen network with ImageNet weights, for images that start from one of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.classifier.data import frozen_backbone
from shared.classifier.frozen_features import UNAUGMENTED, image_digests
from shared.classifier.model import build_trunk
from shared.classifier.runtime import Runtime
from shared.config.training import Classifier
from shared.data.imageset import ImageSet
from shared.diffusion.quota import StartingPoints, Starts
from shared.weights import packaged

MOST = 64
"""Limits the images by which a class is judged: the mean of 64 is known to an eighth of the deviation of one, and a CPU reads them in a second."""
SAMPLE_SEED = 0


def similar_starts(
    points: Sequence[StartingPoints],
    count: int,
    train: ImageSet,
    side: int,
    runtime: Runtime,
) -> Starts:
    """Returns, by target, the rows of the `count` classes of its group whose mean features are nearest to those of the filled class.

    `side` gives the pixels per side of the images. Raises ConfigError if the network's weights are not installed, and Stopped.
    """
    wanted = [_sample(rows) for point in points for rows in (point.own, *point.rows.values())]
    if not wanted:
        return {}
    rows = np.unique(np.concatenate(wanted))
    features = _features(train.take(rows), packaged.seen_side(side), runtime)

    def mean(of: NDArray[np.int64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = features[np.searchsorted(rows, _sample(of))].mean(axis=0, dtype=np.float64)
        return found

    starts = {}
    for point in points:
        own = mean(point.own)
        near = sorted(point.rows.values(), key=lambda of: float(np.linalg.norm(mean(of) - own)))
        starts[point.target] = near[:count]
    return starts


def _sample(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns at most MOST of the rows, the same ones each time."""
    return rows[np.random.default_rng(SAMPLE_SEED).permutation(len(rows))[:MOST]]


def _features(images: ImageSet, side: int, runtime: Runtime) -> NDArray[np.float32]:
    network = Classifier(model=packaged.MODEL, pretrained=packaged.WEIGHTS, trainable="head")
    backbone = frozen_backbone(build_trunk(network, side).to(runtime.device), runtime)
    out = np.empty((len(images), *backbone.output_shape()), np.float32)
    wanted = [(digest, UNAUGMENTED) for digest in image_digests(images)]
    backbone.fill(
        out, images, wanted, np.arange(len(images)), "training images through the frozen backbone", runtime.stop
    )
    return out
