from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from shared.data.imageset import ImageSet
from tests.support.tiny_arms import SCHEMA, make_images


@pytest.fixture(scope="session")
def train() -> ImageSet:
    return make_images(60)


@pytest.fixture(scope="session")
def val() -> ImageSet:
    return make_images(40, seed=1, split="val")


@pytest.fixture(scope="session")
def generated(train: ImageSet) -> ImageSet:
    """Returns twenty images in two pools, each with the labels of a training image."""
    made = make_images(20, seed=2, split="generated")
    source = np.arange(20) * 2
    extra = pa.table({"index": np.arange(20), "pool": (np.arange(20) % 2).astype(np.int32), "source": source})
    return ImageSet(SCHEMA, made.encoded, made.paths, made.split, train.labels[source], extra)
