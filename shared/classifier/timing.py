"""Measures on a few random images how long training takes here, for a forecast."""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import torch

from shared.artifacts.checkpoints import NoCheckpoints
from shared.benchmark import MOST, SECONDS, Clock, Enough, Range, Repeats, spread, work_clock
from shared.classifier.fit import EpochRecord, TrainingData, fit, new_network
from shared.classifier.frozen_features import UNAUGMENTED, decoded, image_digests
from shared.classifier.inputs import FrozenFeatures
from shared.classifier.runtime import Runtime
from shared.classifier.training_set import TrainingSet
from shared.config.paths import with_parameters
from shared.config.search import Resources
from shared.config.stages import Arm
from shared.data.imageset import ImageSet
from shared.data.random_images import random_images
from shared.data.schema import LabelSchema
from shared.device import pick_device
from shared.stop import StopSignal

FEW = 16
"""Sets the number of images of the smaller of two sets whose epochs are compared, so that what an image takes is told from what a step and an epoch take."""
LEAST_TIMES, MOST_TIMES = 4, 64
"""Bound how many times as many images the larger set has: as many as keep its epochs near SECONDS, since differences of short epochs are noise."""
SLOW_SECONDS = 0.5
"""Sets the seconds of an epoch of FEW images from which on only the images count."""


@dataclass(frozen=True)
class TrainingTime:
    """Holds what a training costs in seconds, each as a range `[3]`, and in bytes."""

    epoch: Range
    """Gives the seconds of an epoch apart from its steps and images."""
    step: Range
    """Gives the seconds of a step apart from its images."""
    image: Range
    """Gives the seconds per image of an epoch."""
    build: Range
    """Gives the seconds to load the network."""
    decode: Range
    """Gives the seconds to decode an image."""
    view: Range
    """Gives the seconds that a view of an image takes in the frozen backbone."""
    views: int
    """Counts the views of a training image that are kept; 0 if none are."""
    view_bytes: int
    """Gives the memory of a kept view, or of an image that is kept decoded if there are no views."""
    weight_bytes: int
    """Gives the size of the weights as they are committed, those of a frozen trunk included."""


def time_training(arm: Arm, resolution: int, schema: LabelSchema, resources: Resources) -> TrainingTime:
    """Times an arm's classifier with random weights on random images of `resolution` pixels; raises what its training raises.

    Epochs of FEW images in one step, and of many in large steps and in small ones, are compared.
    """
    device = pick_device(resources.device)
    clock = work_clock(device.type == "cuda", torch.get_num_threads())
    plain = {
        "classifier.pretrained": False,
        "training.refit_epochs": 0,
        "training.warmup_epochs": 0,
        "training.lr": 1e-6,  # too small to diverge
    }
    arm = with_parameters(arm.model_copy(update={"images": "real", "synthetic": None, "accept": None}), plain)
    few = random_images(schema, resolution, FEW)
    began = clock()
    data = _build(arm, few, few, resources, device)
    built = clock() - began
    decode, view = _setup_seconds(data, few, clock)
    views = len(data.inputs.views) if isinstance(data.inputs, FrozenFeatures) else 0
    alone = max(built - FEW * (2 * decode + (views + 1) * view), 1e-3)
    of_few, spread_of = _epoch(arm, data, clock, FEW)
    if of_few > SLOW_SECONDS:
        epoch, step, image = 0.0, 0.0, of_few / FEW
    else:
        times = max(LEAST_TIMES, min(int(SECONDS / of_few), MOST_TIMES)) // LEAST_TIMES * LEAST_TIMES
        many, large_steps = _repeated(data, times), times // LEAST_TIMES
        (large, spread_of), (small, _) = _epoch(arm, many, clock, LEAST_TIMES * FEW), _epoch(arm, many, clock, FEW)
        step = max(small - large, 0.0) / (times - large_steps)
        image = max(large - of_few - (large_steps - 1) * step, 0.0) / (times * FEW - FEW)
        epoch = max(of_few - step - FEW * image, 0.0)
    weights = sum(tensor.nbytes for tensor in new_network(arm, data, 0).state_dict().values())
    kept = data.inputs.nbytes // max(len(data) * max(views, 1), 1)
    epochs = (epoch * spread_of, step * spread_of, image * spread_of)
    return TrainingTime(*epochs, _about(alone), _about(decode), _about(view), views, kept, weights)


def _epoch(arm: Arm, data: TrainingData, clock: Clock, batch: int) -> tuple[float, Range]:
    """Returns the median of the seconds of an epoch with its validation, for batches of this size, and the range as shares of it."""
    repeats, last = Repeats(), [clock()]

    def note(record: EpochRecord) -> None:
        now = clock()
        passed, last[0] = now - last[0], now
        repeats.add(passed)

    with suppress(Enough):
        fit(
            with_parameters(arm, {"training.batch_size": batch}),
            data,
            MOST + 1,
            0,
            NoCheckpoints(),
            StopSignal(),
            note,
        )
    seconds = spread(repeats.times)
    return float(seconds[1]), seconds / seconds[1]


def _about(seconds: float) -> Range:
    """Returns the range of a time that was measured once over many images."""
    return seconds * np.array([0.9, 1.0, 1.2])


def _build(arm: Arm, images: ImageSet, val: ImageSet, resources: Resources, device: torch.device) -> TrainingData:
    count = len(images)
    everything = TrainingSet(images, np.zeros(count, bool), np.ones((count, len(images.schema.groups)), bool))
    return TrainingData.build(arm, everything, val, np.empty(0, np.int64), Runtime(device, resources))


def _repeated(data: TrainingData, times: int) -> TrainingData:
    """Returns data that hold each image so many times; the frozen backbone, which may take longer than an epoch, does not run again."""
    inputs = copy(data.inputs)
    inputs.kept = inputs.kept.repeat(times, *[1] * (inputs.kept.dim() - 1))
    labels, mask = np.tile(data.labels, (times, 1)), np.tile(data.mask, (times, 1))
    return replace(data, inputs=inputs, labels=labels, mask=mask, generated=np.tile(data.generated, times))


def _setup_seconds(data: TrainingData, images: ImageSet, clock: Clock) -> tuple[float, float]:
    """Returns the seconds to decode an image, and those that a view takes in the frozen backbone, 0 if there is none."""
    start = clock()
    pixels = torch.from_numpy(decoded(images, data.frozen.trunk.resolution))
    decode = (clock() - start) / len(images)
    if not data.trunk.has_frozen_layers:
        return decode, 0.0
    batch, digests = data.frozen.batch, image_digests(images)
    rows = np.arange(batch) % len(images)  # a smaller batch would be filled up
    view = data.inputs.views[-1] if isinstance(data.inputs, FrozenFeatures) else UNAUGMENTED
    wanted = [(digests[row], view) for row in rows]
    passes: list[float] = []
    while sum(passes) < SECONDS:
        start = clock()
        data.frozen.computed(pixels[torch.from_numpy(rows)], wanted).cpu()
        passes.append(clock() - start)
    return decode, float(np.median(passes)) / batch
