"""Trains as people usually do with timm: each epoch decodes and augments every image, and runs the whole network on it.

As in a trial, frozen parts have no gradients, and their batch-norm stays in eval mode. Model, head, loss, optimizer, schedule, batch size
and scores are those of a trial.
"""

from __future__ import annotations

import io
import math
import time

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.outcome import Outcome
from benchmarks.tailfill_trial import Bench
from shared.classifier import augment
from shared.classifier.fit import unmasked_targets
from shared.classifier.loss import ClassCounts, Loss
from shared.classifier.model import Trunk, build_head, build_trunk, set_mode
from shared.classifier.optimizer import make_optimizer, rate_at
from shared.classifier.precision import autocast, grad_scaler, move_to
from shared.classifier.predictor import probabilities
from shared.classifier.rng import derived_seed
from shared.classifier.snapshot import EpochRecord
from shared.config.stages import Arm
from shared.config.training import Augmentation
from shared.data.dataset import rare_classes
from shared.data.imageset import ImageSet
from shared.errors import ConfigError
from shared.metrics.classification import fast_scores

Loader = DataLoader[tuple[Tensor, Tensor]]


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """Decodes and transforms each image whenever it is read."""

    def __init__(self, images: ImageSet, transform: v2.Transform) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        with Image.open(io.BytesIO(self.images.encoded[position])) as image:
            return self.transform(image.convert("RGB")), torch.from_numpy(self.images.labels[position])


def transform(kind: Augmentation, erasing: float, resolution: int) -> v2.Transform:
    """Returns an augmentation of the paper's Table 2, made of torchvision's transforms with the strengths of `shared.classifier.augment`."""
    steps: list[nn.Module] = [v2.Resize((resolution, resolution))]
    if kind != "none":
        steps.append(v2.RandomHorizontalFlip(augment.FLIP))
    if kind in ("soft", "hard"):
        scale = (1 - augment.SCALE, (1 + augment.SCALE) * augment.ZOOM)
        shift = (augment.SHIFT, augment.SHIFT)
        steps.append(v2.RandomAffine(augment.DEGREES, shift, scale, augment.SHEAR, v2.InterpolationMode.BILINEAR))
        steps.append(v2.ColorJitter(augment.BRIGHTNESS, augment.CONTRAST, augment.SATURATION, augment.HUE))
    if kind == "hard":
        steps.append(v2.RandomAdjustSharpness(augment.SHARPNESS, augment.HARD))
        contrast = v2.ColorJitter(contrast=(augment.HARD_CONTRAST, augment.HARD_CONTRAST))
        steps.append(v2.RandomApply([contrast], augment.HARD))
    steps += [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    if erasing > 0:
        steps.append(v2.RandomErasing(erasing, augment.ERASED_AREA, augment.ERASED_ASPECT, "random"))
    return v2.Compose(steps)


class PlainNetwork(nn.Module):
    """Runs the trunk and the head on every image."""

    def __init__(self, trunk: Trunk, head: nn.Sequential) -> None:
        super().__init__()
        self.trunk, self.head, self.parts = trunk.model, head, trunk

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.trunk(self.parts.normalised(images)))
        return logits

    def train(self, mode: bool = True) -> PlainNetwork:
        super().train(mode)
        set_mode(self.trunk, self.parts.prefix, mode)
        return self


def check_arm(arm: Arm) -> None:
    """Raises ConfigError if an arm needs something that the plain loop does not have."""
    training = arm.training
    if arm.images != "real" or training.mixup or training.class_power or training.refit_epochs:
        raise ConfigError(
            "the plain loop has no generated images, mixup, class_power or refit_epochs; leave them out of the study (--set)"
        )


class PlainLoop:
    """Holds the state of one training."""

    def __init__(self, bench: Bench, device: torch.device, workers: int, seed: int) -> None:
        """Prepares a training on the data and with the parameters of a trial."""
        arm, train = bench.config.arm, bench.train
        self.arm, self.val, self.device, self.seed = arm, bench.val, device, seed
        self.rare = rare_classes(arm.rare, bench.info)
        self.schema = train.schema
        self.resolution = resolution = arm.classifier.resolution or bench.info.resolution
        torch.manual_seed(seed)
        trunk = build_trunk(arm.classifier, resolution, derived_seed("trunk", seed))
        head = build_head(trunk.features, arm.classifier.head, self.schema.width, arm.training.dropout)
        self.whole = PlainNetwork(trunk, head)
        move_to(self.whole, device)
        self.network: nn.Module = self.whole
        """The part of the network that is run on each batch."""
        counts = ClassCounts.of(train.labels, np.ones(train.labels.shape, np.bool_))
        self.loss = Loss.of(self.schema, arm.training, counts, counts, device)
        self.validation_loss = Loss.for_validation(self.schema, arm.training, counts, device)
        augmented = transform(arm.augmentation, arm.training.erasing, resolution)
        self.batches = self.loader(Pictures(train, augmented), workers, shuffle=True)
        self.val_batches = self.loader(Pictures(self.val, transform("none", 0.0, resolution)), workers)

    def run(self, epochs: int) -> Outcome:
        """Runs all epochs, each with its validation."""
        started = time.monotonic()
        trained = [p for p in self.network.parameters() if p.requires_grad]
        optimizer, scaler = make_optimizer(self.arm.training, trained), grad_scaler(self.device)
        history = []
        for epoch in range(epochs):
            begun = time.monotonic()
            train_loss, lr = self._train(epoch, epochs, optimizer, scaler)
            val_loss, scores = self._validate()
            seconds = time.monotonic() - begun
            history.append(
                EpochRecord(
                    epoch, lr, train_loss, math.nan, val_loss, scores["accuracy"], scores["macro_f1"], scores["rare_macro_f1"], seconds,
                )
            )  # fmt: skip
        return Outcome.of(self.seed, 0.0, time.monotonic() - started, history)

    def _train(
        self, epoch: int, epochs: int, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
    ) -> tuple[float, float]:
        self.network.train()
        total, lr = 0.0, 0.0
        for number, (images, labels) in enumerate(self.batches):
            progress = epoch + (number + 0.5) / len(self.batches)
            lr = self.arm.training.lr * rate_at(progress, epochs, self.arm.training.warmup_epochs)
            for group in optimizer.param_groups:
                group["lr"] = lr
            with autocast(self.device):
                logits = self.network(self._on(images))
            loss = self.loss(logits, unmasked_targets(labels.to(self.device), len(self.schema.groups)))
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(optimizer)
            scaler.update()
            total += float(loss.detach())
        return total / len(self.batches), lr

    def _validate(self) -> tuple[float, dict[str, float]]:
        self.network.eval()
        with torch.inference_mode(), autocast(self.device):
            logits = torch.cat([self.network(self._on(images)).float() for images, _ in self.val_batches])
            labels = torch.from_numpy(self.val.labels).to(self.device)
            loss = self.validation_loss(logits, unmasked_targets(labels, len(self.schema.groups)))
        return float(loss), fast_scores(self.schema, probabilities(logits, self.schema), self.val.labels, self.rare)

    def loader(self, pictures: Dataset[tuple[Tensor, Tensor]], workers: int, shuffle: bool = False) -> Loader:
        """Returns a loader with the study's batch size and `workers` decoding processes."""
        return DataLoader(
            pictures,
            self.arm.training.batch_size,
            shuffle,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
        )

    def _on(self, images: Tensor) -> Tensor:
        images = images.to(self.device, non_blocking=True)
        return images.contiguous(memory_format=torch.channels_last) if self.device.type == "cuda" else images
