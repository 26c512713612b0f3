"""Prepares the inputs of an arm's training on one device.

They are decoded, or run through the frozen backbone, only once, and many trials and epochs use them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from shared.classifier.augment import augment
from shared.classifier.feature_cache import FeatureCache
from shared.classifier.frozen_features import UNAUGMENTED, FrozenBackbone, View
from shared.classifier.inputs import FrozenFeatures, Pixels
from shared.classifier.loss import ClassCounts
from shared.classifier.model import Network, Trunk, build_trunk
from shared.classifier.precision import autocast, move_to, to_float_images
from shared.classifier.rng import numpy_generator, torch_generator
from shared.classifier.runtime import Runtime
from shared.classifier.training_set import SoftLabels, TrainingSet
from shared.config.stages import Arm
from shared.data.imageset import ImageSet
from shared.data.schema import Labels, LabelSchema
from shared.errors import ConfigError, DataError
from shared.memory import spare_memory

GIB = 2**30
AUTO_VIEWS, MIRRORED_VIEWS = 8, 2


@dataclass(frozen=True)
class TrainingData:
    """Holds the data of an arm's trainings: `build` makes it once, and `fit` uses it many times, with other parameters each time."""

    schema: LabelSchema
    device: torch.device
    trunk: Trunk
    """Holds the trunk before any training; each training works on a copy."""
    frozen: FrozenBackbone
    inputs: Pixels | FrozenFeatures
    """Holds pixels or, if views of an augmentation are kept, their frozen features."""
    labels: Labels
    """Holds the labels of the effective training set, `[n, C]`."""
    generated: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    """Says whether a group counts in the loss of an image, `[n, G]`."""
    val_inputs: Pixels | FrozenFeatures
    """Holds pixels or, if there is a frozen backbone, its outputs without augmentation."""
    val_labels: Labels
    rare: NDArray[np.int64]
    identity: dict[str, Any]
    """Holds the settings of the arm that the inputs depend on."""
    soft: SoftLabels | None = None
    """Says how labels are shared with those of the images from which generated ones start."""

    @classmethod
    def build(
        cls,
        arm: Arm,
        training: TrainingSet,
        val: ImageSet,
        rare: NDArray[np.int64],
        runtime: Runtime,
    ) -> TrainingData:
        """Decodes the images, and runs them through the frozen backbone unless they are augmented afresh in each epoch.

        Memory holds as much of them as `cache_gib` and this process's share of the memory allow. The cache of `runtime`, which holds at most
        `cache_gib` too, shares the frozen backbone's outputs with other trainings. Raises ConfigError or DataError for a model or weights that
        do not fit, DataError for empty sets or damaged images, and Stopped.
        """
        for name, images in (("training", training.images), ("validation", val)):
            if len(images) == 0:
                raise DataError(f"the {name} set has no images; check the splits that `prepare` made")
        resolution = resolution_of(arm, training.images)
        device, stop = runtime.device, runtime.stop
        trunk = build_trunk(arm.classifier, resolution, fetched=runtime.fetched)
        move_to(trunk.model, device)
        budget = min(runtime.resources.cache_gib * GIB, spare_memory(runtime.memory))
        frozen = frozen_backbone(trunk, runtime)
        val_inputs: Pixels | FrozenFeatures
        if trunk.has_frozen_layers:
            val_inputs = FrozenFeatures(
                frozen, val, [UNAUGMENTED], budget, "validation images through the frozen backbone", stop
            )
        else:
            val_inputs = Pixels(val, resolution, budget, device)
        views = _views_to_keep(arm, trunk)
        budget -= val_inputs.nbytes
        return cls(
            training.images.schema,
            device,
            trunk,
            frozen,
            FrozenFeatures(frozen, training.images, views, budget, "training images through the frozen backbone", stop)
            if views
            else Pixels(training.images, resolution, budget, device),
            training.images.labels,
            training.generated,
            training.loss_mask,
            val_inputs,
            val.labels,
            rare,
            input_settings(arm),
            training.soft,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def matches(self, arm: Arm) -> bool:
        """Returns whether an arm can train on this data: settings that do not change the inputs (learning rate, dropout, …) may differ."""
        return input_settings(arm) == self.identity

    def batch(self, network: Network, arm: Arm, rows: NDArray[np.int64], seed: int, epoch: int, number: int) -> Tensor:
        """Returns the network's inputs for these rows on the device, augmented as batch `number` of an epoch."""
        if isinstance(self.inputs, FrozenFeatures):
            own = own_views(arm, seed)
            return self.inputs.rows(
                rows, own[numpy_generator("views", seed, epoch, number).integers(len(own), size=len(rows))]
            )
        images = to_float_images(self.inputs.rows(rows), self.device)
        generator = torch_generator("augment", seed, epoch, number)
        images = augment(images, arm.augmentation, arm.training.erasing, generator)
        with autocast(self.device):
            return network.frozen_outputs(images)

    def unaugmented(self, network: Network, rows: NDArray[np.int64]) -> Tensor:
        """Returns the network's inputs for these training rows without augmentation."""
        return self._unaugmented(self.inputs, network, rows)

    def validation(self, network: Network, start: int, stop: int) -> Tensor:
        """Returns the network's inputs for these validation images."""
        return self._unaugmented(self.val_inputs, network, np.arange(start, min(stop, len(self.val_labels))))

    def _unaugmented(self, inputs: Pixels | FrozenFeatures, network: Network, rows: NDArray[np.int64]) -> Tensor:
        if isinstance(inputs, FrozenFeatures):
            # the first of mirrored views is the image itself
            view = inputs.views.index(UNAUGMENTED) if UNAUGMENTED in inputs.views else 0
            return inputs.rows(rows, np.full_like(rows, view))
        with autocast(self.device):
            return network.frozen_outputs(to_float_images(inputs.rows(rows), self.device))

    def counts(self, label_power: float, weight: NDArray[np.float64] | None = None) -> ClassCounts:
        """Counts how often each class is seen in the effective training set; an image counts with its `weight`, `[n]`, or once.

        A soft label counts for each of its classes with its share, which `label_power` gives.
        """
        columns = np.concatenate(
            [np.repeat(self.mask[:, g : g + 1], len(group.classes), 1) for g, group in enumerate(self.schema.groups)], 1
        )
        if self.soft is None:
            return ClassCounts.of(self.labels, columns, weight)
        own, weight = self.soft.own_share(label_power), np.ones(len(self)) if weight is None else weight
        return ClassCounts.of(self.labels, columns, weight * own).plus(
            ClassCounts.of(self.soft.labels, columns, weight * (1 - own))
        )

    def real_counts(self) -> ClassCounts:
        """Counts how often each class is seen among the real images, whose labels are their own."""
        return self.counts(1.0, (~self.generated).astype(np.float64))


def resolution_of(arm: Arm, images: ImageSet) -> int:
    """Returns the side in pixels of the images that an arm's network sees: the classifier's own, or that of the data set's images."""
    return arm.classifier.resolution or image_side(images)


def frozen_backbone(trunk: Trunk, runtime: Runtime) -> FrozenBackbone:
    """Returns the frozen backbone of a trunk that has its weights and is on the device. It uses the cache of `runtime`, if there is one."""
    cache = FeatureCache(runtime.cache, runtime.resources.cache_gib * GIB) if runtime.cache else None
    return FrozenBackbone(trunk, runtime.device, cache)


def input_settings(arm: Arm) -> dict[str, Any]:
    """Returns the settings that the inputs depend on; arms for which they are equal can share a TrainingData."""
    training = arm.training
    kept = kept_views(arm) is not None or not is_augmented(arm)
    return {
        "classifier": arm.classifier.model_dump(exclude={"head"}),
        "images": arm.images,
        "accept": arm.accept,
        "manual_images": training.manual_images,
        "groups": arm.synthetic.groups if arm.synthetic else "all",
        "views": kept_views(arm),
        "plain": keeps_unaugmented(arm),
        # kept outputs contain the augmentation; otherwise every batch is augmented afresh
        "augmentation": (arm.augmentation, training.erasing) if kept else None,
    }


def is_augmented(arm: Arm) -> bool:
    """Returns whether training images differ from epoch to epoch."""
    return arm.augmentation != "none" or arm.training.erasing > 0


def kept_views(arm: Arm) -> int | None:
    """Returns the number of augmented views to keep per image; None if each epoch augments afresh or nothing is augmented."""
    views = arm.training.views
    if views == "fresh" or (views == "auto" and (arm.classifier.trainable == "all" or not is_augmented(arm))):
        return None
    if views == "auto":
        return MIRRORED_VIEWS if is_mirrored_only(arm) else AUTO_VIEWS
    return views


def own_views(arm: Arm, seed: int) -> NDArray[np.int64]:
    """Returns the kept views that a training with this seed draws from: a random half, so that repetitions do not share all of them.

    The augmentation `basic` has only two views, the image and its mirror image, and every training uses both.
    """
    kept = kept_views(arm) or 1
    if kept == 1 or is_mirrored_only(arm):
        return np.arange(kept)
    return np.sort(numpy_generator("own views", seed).permutation(kept)[: kept // 2])


def is_mirrored_only(arm: Arm) -> bool:
    """Returns whether the augmentation only mirrors images, so that each has two views."""
    return arm.augmentation == "basic" and arm.training.erasing == 0


def keeps_unaugmented(arm: Arm) -> bool:
    """Returns whether the unaugmented image is kept beside its views, for the refit of the last layer."""
    return arm.training.refit_epochs > 0 and is_augmented(arm) and not is_mirrored_only(arm)


def _views_to_keep(arm: Arm, trunk: Trunk) -> list[View]:
    """Returns the views to run through the frozen backbone once; none if every epoch augments afresh or nothing is frozen."""
    views = kept_views(arm)
    if views is not None and not trunk.has_frozen_layers and arm.training.views != "auto":
        raise ConfigError(
            f"training.views: {views} views cannot be kept, as {arm.classifier.model} has no frozen backbone with trainable: "
            f"{arm.classifier.trainable}; leave views out, or train only the head or the last blocks"
        )
    if not trunk.has_frozen_layers:
        return []
    if views is not None:
        kept = [View(arm.augmentation, arm.training.erasing, number) for number in range(views)]
        return [*kept, UNAUGMENTED] if keeps_unaugmented(arm) else kept
    return [] if is_augmented(arm) else [UNAUGMENTED]


def image_side(images: ImageSet) -> int:
    """Returns the side of the data set's images in pixels; they are all square and of one size."""
    with Image.open(io.BytesIO(images.encoded[0])) as image:
        return image.size[0]
