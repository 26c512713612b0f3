"""Measures on a few random images how long training takes here, for a forecast."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from shared.artifacts.checkpoints import NoCheckpoints
from shared.benchmark import MOST, Enough, Range, Repeats, exactly, spread
from shared.classifier.fit import EpochRecord, TrainingData, fit, new_network
from shared.classifier.frozen_features import decoded, image_digests
from shared.classifier.inputs import FrozenFeatures
from shared.classifier.runtime import Runtime
from shared.classifier.training_set import TrainingSet
from shared.config.paths import with_parameters
from shared.config.search import Resources
from shared.config.stages import Arm
from shared.data.encode import encode_image
from shared.data.imageset import ImageSet
from shared.data.schema import LabelSchema
from shared.device import pick_device
from shared.stop import StopSignal

IMAGES = (64, 16)  # fewer if the first epoch is slow
SLOW_SECONDS = 1.5


@dataclass(frozen=True)
class TrainingTime:
    """Holds the cost of a training per image."""

    seconds_an_image: Range
    """Gives the seconds per image of one epoch, without validation."""
    setup_seconds_an_image: Range
    """Gives the seconds per image for decoding and, if its outputs are kept, the frozen backbone."""
    weight_bytes: int
    """Gives the size of the weights as they are committed, those of a frozen trunk included."""

    def setup(self, images: int) -> Range:
        """Returns the seconds before the first epoch."""
        return images * self.setup_seconds_an_image


def time_training(arm: Arm, resolution: int, schema: LabelSchema, resources: Resources) -> TrainingTime:
    """Times an arm's classifier with random weights on random images of `resolution` pixels; raises what its training raises."""
    device = pick_device(resources.device)
    plain = {
        "classifier.pretrained": False,
        "training.refit_epochs": 0,
        "training.warmup_epochs": 0,
        "training.lr": 1e-6,  # too small to diverge
    }
    arm = with_parameters(arm.model_copy(update={"images": "real", "synthetic": None, "accept": None}), plain)
    for count in IMAGES:
        short = with_parameters(arm, {"training.batch_size": min(count, arm.training.batch_size)})
        few, images = _random_images(schema, resolution, 2), _random_images(schema, resolution, count)
        data = _build(short, images, few, resources, device)
        repeats = Repeats()

        def note(record: EpochRecord, repeats: Repeats = repeats, count: int = count) -> None:
            repeats.add(record.seconds)
            if repeats.first > SLOW_SECONDS and count != IMAGES[-1]:
                raise Enough

        with suppress(Enough):
            fit(short, data, MOST + 1, 0, NoCheckpoints(), StopSignal(), note)
        if repeats.times:
            break
    weights = sum(tensor.nbytes for tensor in new_network(short, data, 0).state_dict().values())
    return TrainingTime(spread(repeats.times) / count, exactly(_setup_seconds(data, images)), weights)


def _build(arm: Arm, images: ImageSet, val: ImageSet, resources: Resources, device: torch.device) -> TrainingData:
    count = len(images)
    everything = TrainingSet(images, np.zeros(count, bool), np.ones((count, len(images.schema.groups)), bool))
    return TrainingData.build(arm, everything, val, np.empty(0, np.int64), Runtime(device, resources))


def _setup_seconds(data: TrainingData, images: ImageSet) -> float:
    """Returns the seconds per image before the first epoch: to decode it, and if its outputs are kept, to run its views through the frozen backbone."""
    start = time.monotonic()
    pixels = torch.from_numpy(decoded(images, data.frozen.trunk.resolution))
    seconds = (time.monotonic() - start) / len(images)
    if isinstance(data.inputs, FrozenFeatures):
        batch, digests = data.frozen.batch, image_digests(images)
        rows = np.arange(batch) % len(images)  # a smaller batch would be filled up
        wanted = [(digests[row], data.inputs.views[-1]) for row in rows]
        start = time.monotonic()
        data.frozen.computed(pixels[torch.from_numpy(rows)], wanted).cpu()
        seconds += (time.monotonic() - start) / batch * len(data.inputs.views)
    return seconds


def _random_images(schema: LabelSchema, resolution: int, count: int) -> ImageSet:
    rng = np.random.default_rng(0)
    encoded = [
        encode_image(Image.fromarray(rng.integers(0, 256, (resolution, resolution, 3), np.uint8))) for _ in range(count)
    ]
    labels = np.zeros((count, schema.width), np.int8)
    for columns in schema.slices().values():
        labels[np.arange(count), rng.integers(columns.start, columns.stop, count)] = 1
    names = [f"random {i}" for i in range(count)]
    return ImageSet(schema, encoded, names, np.array(["train"] * count), labels)
