"""How long an image takes to train on here: for a forecast, measured on a few random images."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from PIL import Image

from shared.checkpoint import NoCheckpoints
from shared.classifier.arm import TrainingSet
from shared.classifier.fit import TrainingData, fit
from shared.config.paths import with_parameters
from shared.config.search import Resources
from shared.config.task import Arm
from shared.context import StopSignal
from shared.data.canonical import encode
from shared.data.imageset import ImageSet
from shared.data.schema import LabelSchema
from shared.device import pick_device

IMAGES = 64
EPOCHS = 3  # the first pays for what is set up once


@dataclass(frozen=True)
class TrainingTime:
    """What a training costs, by the image."""

    seconds_an_image: float
    """Of one epoch, validation left out."""
    setup_seconds_an_image: float
    """Decoding, and the frozen part where its outputs are kept."""
    weight_bytes: int
    """Of the trained weights."""

    def setup(self, images: int) -> float:
        """Seconds before the first epoch."""
        return images * self.setup_seconds_an_image


def time_training(arm: Arm, resolution: int, schema: LabelSchema, resources: Resources) -> TrainingTime:
    """Times an arm's classifier with random weights on random images of `resolution` pixels; raises what its training raises."""
    batch = min(IMAGES, arm.training.batch_size)
    plain = {
        "classifier.pretrained": False,
        "training.refit_epochs": 0,
        "training.warmup_epochs": 0,
        "training.batch_size": batch,
    }
    arm = with_parameters(arm.model_copy(update={"images": "real", "synthetic": None, "accept": None}), plain)
    images = _random_images(schema, resolution)
    everything = TrainingSet(images, np.zeros(IMAGES, bool), np.ones((IMAGES, len(schema.groups)), bool))
    start = time.monotonic()
    few = images.take(np.arange(2))
    data = TrainingData.build(arm, everything, few, np.empty(0, np.int64), resources, pick_device(resources.device))
    setup = time.monotonic() - start
    fitted = fit(arm, data, EPOCHS, 0, NoCheckpoints(), StopSignal())
    seconds = min(record.seconds for record in fitted.history[1:])
    weights = sum(p.numel() * p.element_size() for p in fitted.network.trainable_parameters().values())
    return TrainingTime(seconds / IMAGES, setup / IMAGES, weights)


def _random_images(schema: LabelSchema, resolution: int) -> ImageSet:
    rng = np.random.default_rng(0)
    encoded = [
        encode(Image.fromarray(rng.integers(0, 256, (resolution, resolution, 3), np.uint8))) for _ in range(IMAGES)
    ]
    labels = np.zeros((IMAGES, schema.width), np.int8)
    for columns in schema.slices().values():
        labels[np.arange(IMAGES), rng.integers(columns.start, columns.stop, IMAGES)] = 1
    names = [f"random {i}" for i in range(IMAGES)]
    return ImageSet(schema, encoded, names, np.array(["train"] * IMAGES), labels)
