"""Trains one arm with one set of parameters, from its TrainingData to a TrainedClassifier; it can resume after every epoch."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.artifacts.checkpoints import AsyncCheckpointer, Checkpoints
from shared.artifacts.disk import room_errors
from shared.classifier.augment import mixup_pairs
from shared.classifier.data import TrainingData
from shared.classifier.loss import Loss, Targets
from shared.classifier.model import Network, build_head, build_trunk, trains_on_one
from shared.classifier.optimizer import make_optimizer, rate_at
from shared.classifier.precision import autocast, grad_scaler, move_to
from shared.classifier.predictor import TrainedClassifier, probabilities
from shared.classifier.right_answers import RightAnswers
from shared.classifier.rng import derived_seed, numpy_generator, torch_generator
from shared.classifier.sampling import Rows, Sampler, without_single_images
from shared.classifier.snapshot import EpochRecord, Snapshot
from shared.classifier.training_set import SoftLabels
from shared.config.stages import Arm
from shared.config.training import LABEL_POWER
from shared.data.schema import LabelSchema
from shared.errors import InputError, UnavailableError
from shared.log import Log
from shared.metrics.classification import fast_scores
from shared.stop import StopSignal

__all__ = [
    "EpochRecord",
    "OutOfMemory",
    "TrainedClassifier",
    "TrainingData",
    "TrainingDiverged",
    "TrainingFailed",
    "fit",
]

EVALUATION_BATCH = 512
CPU_MEMORY = "can't allocate memory"  # torch's allocator on a CPU has no error class of its own

log = Log("classifier")

OnEpoch = Callable[[EpochRecord], None]


class TrainingFailed(InputError):
    """Says that training with these parameters failed; a search counts the trial as failed and continues."""


class TrainingDiverged(TrainingFailed):
    """Says that the loss is no longer a finite number."""


class OutOfMemory(TrainingFailed):
    """Says that the batch does not fit in memory."""


def fit(
    arm: Arm,
    data: TrainingData,
    epochs: int,
    seed: int,
    checkpoints: Checkpoints,
    stop: StopSignal,
    on_epoch: OnEpoch | None = None,
    checkpoint_every: int = 1,
) -> TrainedClassifier:
    """Trains for `epochs` epochs, then refits the last layer for `training.refit_epochs`.

    If there is a checkpoint, training continues from it and ends with the weights and history (except seconds) of an uninterrupted run:
    on a CPU, bit for bit. `on_epoch` is called after each newly computed epoch; an error that it raises ends the training. Every
    `checkpoint_every` epochs a checkpoint is saved in the background, unless the previous one is still being saved or the rest of the
    training takes no longer than saving. If `stop` is set, the last finished epoch is checkpointed, if the grace period suffices.

    Raises Stopped, TrainingDiverged and OutOfMemory (both TrainingFailed), and ValueError if `data` was built for an arm with other
    inputs.
    """
    if not data.matches(arm):
        raise ValueError(
            "the TrainingData was built for an arm with other inputs (model, augmentation, images); build it again"
        )
    gpus = [data.device] if data.device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), _out_of_memory_errors(arm), AsyncCheckpointer() as checkpointer:
        saver = _CheckpointSaver(checkpoints, checkpointer, stop, checkpoint_every)
        run = _TrainingRun(arm, data, epochs, seed, saver, on_epoch)
        run.train()
        saver.finish(run.snapshot)
        logits = run.validate()[1]
        return TrainedClassifier(
            run.network,
            data.schema,
            data.device,
            data.frozen,
            run.history,
            probabilities(logits, data.schema),
            logits.cpu().numpy(),
        )


@dataclass(frozen=True)
class _Trained:
    """Holds what the steps of an epoch gave."""

    loss: float
    """Gives the mean over the steps."""
    lr: float
    """Gives the learning rate of the last step."""
    accuracy: float
    """Gives the mean over the label groups, NaN if nothing was known; see `EpochRecord.train_accuracy`."""


class _TrainingRun:
    """Holds the state of one training, and runs it."""

    def __init__(
        self,
        arm: Arm,
        data: TrainingData,
        epochs: int,
        seed: int,
        saver: _CheckpointSaver,
        on_epoch: OnEpoch | None,
    ) -> None:
        self.arm, self.data, self.epochs, self.seed = arm, data, epochs, seed
        self.saver, self.on_epoch = saver, on_epoch
        self.network = new_network(arm, data, seed)
        self.scaler = grad_scaler(data.device)
        self.validation_loss = Loss.for_validation(data.schema, arm.training, data.real_counts(), data.device)
        self.labels = torch.from_numpy(data.labels).to(data.device)
        self.mask = torch.from_numpy(data.mask).to(data.device)
        loss_weight = arm.synthetic.loss_weight if arm.synthetic else 1.0
        self.image_weight = np.where(data.generated, loss_weight, 1.0)
        self.weight = torch.from_numpy(self.image_weight.astype(np.float32)).to(data.device)
        self.label_power = arm.synthetic.label_power if arm.synthetic else LABEL_POWER
        self.soft = None if data.soft is None else _SoftTargets.of(data.soft, self.label_power, data.device)
        self.history: list[EpochRecord] = []
        self.snapshot = saver.load()
        if self.snapshot is not None:
            self.snapshot.restore_network(self.network)
            self.history = list(self.snapshot.history)

    def train(self) -> None:
        """Runs the epochs that are not done yet."""
        sampler = Sampler(self.arm, self.data.labels, self.data.generated, self.epochs, self.seed)
        if len(self.history) < self.epochs:
            optimizer = self._optimizer(self.network.trainable_parameters())
            for epoch in range(len(self.history), self.epochs):
                self._epoch(epoch, optimizer, partial(self._train, sampler=sampler, epoch=epoch))
        if len(self.history) < self.epochs + self.arm.training.refit_epochs:
            self._refit()

    def validate(self) -> tuple[float, Tensor]:
        """Returns the validation loss and the logits `[m, C]`, on the device."""
        data = self.data
        self.network.eval()
        parts = []
        with torch.inference_mode(), autocast(data.device):
            for start in range(0, len(data.val_labels), EVALUATION_BATCH):
                inputs = data.validation(self.network, start, start + EVALUATION_BATCH)
                parts.append(self.network(inputs).float())
            logits = torch.cat(parts)
            labels = torch.from_numpy(data.val_labels).to(data.device)
            loss = self.validation_loss(logits, unmasked_targets(labels, len(data.schema.groups)))
        return float(loss), logits

    def _epoch(
        self,
        epoch: int,
        optimizer: torch.optim.Optimizer,
        train: Callable[[torch.optim.Optimizer], _Trained],
    ) -> None:
        """Runs `train`, then validates, records, reports and checkpoints."""
        started = time.monotonic()
        self._check_stop()
        torch.manual_seed(derived_seed("dropout", self.seed, epoch))
        trained = train(optimizer)
        val_loss, logits = self.validate()
        if not (math.isfinite(trained.loss) and math.isfinite(val_loss)):
            raise TrainingDiverged(
                f"training diverged in epoch {epoch}: training loss {trained.loss}, validation loss {val_loss}; "
                f"lower training.lr, got {self.arm.training.lr}"
            )
        predicted = probabilities(logits, self.data.schema)
        scores = fast_scores(self.data.schema, predicted, self.data.val_labels, self.data.rare)
        record = EpochRecord(
            epoch,
            trained.lr,
            trained.loss,
            trained.accuracy,
            val_loss,
            scores["accuracy"],
            scores["macro_f1"],
            scores["rare_macro_f1"],
            time.monotonic() - started,
        )
        self.history.append(record)
        self.snapshot = None  # frees its memory before the next one is taken
        self.snapshot = Snapshot.take(self.network, optimizer, self.scaler, self.history)
        if self.on_epoch is not None:
            self.on_epoch(
                record
            )  # before the checkpoint: a process killed in between reports the epoch again instead of never
        left = self.epochs + self.arm.training.refit_epochs - len(self.history)
        self.saver.after_epoch(self.snapshot, left * record.seconds)

    def _train(self, optimizer: torch.optim.Optimizer, sampler: Sampler, epoch: int) -> _Trained:
        training, data = self.arm.training, self.data
        drawn = data.counts(self.label_power, sampler.expected_draws(epoch) * self.image_weight)
        loss = Loss.of(data.schema, training, data.counts(self.label_power), drawn, data.device)
        self.network.train()
        batches = self._batches(sampler, epoch)
        total, lr = torch.zeros((), device=data.device), 0.0
        right = RightAnswers(data.schema, data.device)
        for number, rows in enumerate(batches):
            self._check_stop()
            # the middle of the step: neither the first nor the last step has a rate of 0
            lr = training.lr * rate_at(epoch + (number + 0.5) / len(batches), self.epochs, training.warmup_epochs)
            inputs = data.batch(self.network, self.arm, rows, self.seed, epoch, number)
            shown, targets = self._largest(rows), self._shared_targets(rows)
            if training.mixup > 0:
                partner, share = mixup_pairs(
                    len(rows), training.mixup, torch_generator("mixup", self.seed, epoch, number)
                )
                inputs, targets = apply_mixup(inputs, targets, partner.to(data.device), share.to(data.device))
                shown = self._largest(np.where(share.numpy() >= 0.5, rows, rows[partner.numpy()]))
            with autocast(data.device):
                logits = self.network(inputs)
            total += self._step(optimizer, loss(logits, *targets), lr)
            right.add(logits, shown)
        return _Trained(float(total) / len(batches), lr, right.accuracy())

    def _batches(self, sampler: Sampler, epoch: int) -> list[Rows]:
        """Returns the batches of an epoch, none with a single image if the network cannot be trained on that."""
        batches = sampler.batches(epoch)
        if all(len(rows) > 1 for rows in batches) or self._trains_on_one:
            return batches
        return without_single_images(batches)

    @cached_property
    def _trains_on_one(self) -> bool:
        image = self.data.unaugmented(self.network, np.array([0]))
        with autocast(self.data.device):
            return trains_on_one(self.network, image)

    def _step(self, optimizer: torch.optim.Optimizer, value: Tensor, lr: float) -> Tensor:
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(value).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(optimizer)
        self.scaler.update()
        return value.detach()

    def _refit(self) -> None:
        """Trains the last layer alone on real images, with equal weight for each class of a group (Kang et al. 2020: decoupled training).

        The layer's inputs no longer change, so they are computed once, without augmentation or dropout.
        """
        data, training = self.data, self.arm.training
        real = np.flatnonzero(~data.generated)
        self.network.eval()
        *hidden, last = self.network.head
        assert isinstance(last, torch.nn.Linear)
        inputs, filled = _room((len(real), last.in_features), data.device), 0
        with torch.no_grad(), autocast(data.device):
            for rows in np.array_split(real, math.ceil(len(real) / EVALUATION_BATCH)):
                self._check_stop()
                read = self.network.parts.trained_part(data.unaugmented(self.network, rows))
                for layer in hidden:
                    read = layer(read)
                inputs[filled : filled + len(rows)] = read.float()
                filled += len(rows)
        balanced = training.model_copy(update={"loss": "weighted"})
        counts = data.real_counts()
        loss = Loss.of(data.schema, balanced, counts, counts, data.device)
        optimizer = self._optimizer({f"head.{len(hidden)}.{n}": p for n, p in last.named_parameters()}, self.epochs)

        def train(optimizer: torch.optim.Optimizer, epoch: int) -> _Trained:
            order = numpy_generator("refit", self.seed, epoch).permutation(len(real))
            batches = np.array_split(order, math.ceil(len(real) / training.batch_size))
            total, lr = torch.zeros((), device=data.device), 0.0
            right = RightAnswers(data.schema, data.device)
            for number, chosen in enumerate(batches):
                progress = epoch - self.epochs + (number + 0.5) / len(batches)
                lr = training.lr * rate_at(progress, training.refit_epochs, 0)
                logits = last(inputs.index_select(0, torch.from_numpy(chosen).to(data.device)))
                targets = self._targets(real[chosen])
                total += self._step(optimizer, loss(logits, targets), lr)
                right.add(logits, targets)
            return _Trained(float(total) / len(batches), lr, right.accuracy())

        for epoch in range(len(self.history), self.epochs + training.refit_epochs):
            self._epoch(epoch, optimizer, partial(train, epoch=epoch))

    def _optimizer(self, parameters: dict[str, torch.nn.Parameter], first_epoch: int = 0) -> torch.optim.Optimizer:
        """Returns the optimizer, with the checkpoint's state if the checkpoint was taken after `first_epoch`, the optimizer's first."""
        optimizer = make_optimizer(self.arm.training, list(parameters.values()))
        if self.snapshot is not None and len(self.snapshot.history) > first_epoch:
            self.snapshot.restore_optimizer(optimizer, self.scaler)
        return optimizer

    def _targets(self, rows: NDArray[np.int64]) -> Targets:
        chosen = torch.from_numpy(rows).to(self.data.device, non_blocking=True)
        return Targets(self.labels[chosen], self.mask[chosen], self.weight[chosen])

    def _shared_targets(self, rows: NDArray[np.int64]) -> tuple[Targets, ...]:
        """Returns the targets that share the images: their own labels and, if labels are soft, those of the images at their start."""
        own = self._targets(rows)
        if self.soft is None:
            return (own,)
        chosen = torch.from_numpy(rows).to(self.data.device, non_blocking=True)
        share = self.soft.own_share[chosen]
        start = replace(own, labels=self.soft.labels[chosen])
        return replace(own, weight=own.weight * share), replace(start, weight=start.weight * (1 - share))

    def _largest(self, rows: NDArray[np.int64]) -> Targets:
        """Returns the targets with the labels that have the largest share of each image."""
        own = self._targets(rows)
        if self.soft is None:
            return own
        chosen = torch.from_numpy(rows).to(self.data.device, non_blocking=True)
        mostly_own = self.soft.own_share[chosen, None] >= 0.5
        return replace(own, labels=torch.where(mostly_own, own.labels, self.soft.labels[chosen]))

    def _check_stop(self) -> None:
        self.saver.raise_if_stopped(self.snapshot)


@dataclass(frozen=True)
class _SoftTargets:
    """Holds soft labels on the device."""

    labels: Tensor
    """Holds the labels of the image at the start of each image, `[n, C]`."""
    own_share: Tensor
    """Gives the share of an image's own labels, float `[n]`."""

    @classmethod
    def of(cls, soft: SoftLabels, label_power: float, device: torch.device) -> _SoftTargets:
        share = torch.from_numpy(soft.own_share(label_power).astype(np.float32))
        return cls(torch.from_numpy(soft.labels).to(device), share.to(device))


class _CheckpointSaver:
    """Decides when a training's snapshots are saved, and saves them beside the training."""

    def __init__(self, checkpoints: Checkpoints, checkpointer: AsyncCheckpointer, stop: StopSignal, every: int) -> None:
        self._checkpoints, self._checkpointer, self._stop, self._every = checkpoints, checkpointer, stop, every
        self._saved = 0
        """Counts the epochs in the newest checkpoint."""

    def load(self) -> Snapshot | None:
        """Returns the snapshot to resume from, or None."""
        snapshot = Snapshot.load(self._checkpoints)
        self._saved = len(snapshot.history) if snapshot is not None else 0
        return snapshot

    def after_epoch(self, snapshot: Snapshot, seconds_left: float) -> None:
        """Saves the snapshot if it is due, unless one is still on its way or the rest of the training takes no longer than saving."""
        due = len(snapshot.history) % self._every == 0 and seconds_left > self._checkpointer.seconds
        if seconds_left > 0 and not self._checkpointer.busy() and due:
            self._save(snapshot)

    def raise_if_stopped(self, snapshot: Snapshot | None) -> None:
        """Saves the snapshot and raises Stopped, if the signal is set."""
        if self._stop:
            self._save_latest(snapshot)
            self._stop.raise_if_set()

    def finish(self, snapshot: Snapshot | None) -> None:
        """Ends the saving after the last epoch.

        Checkpoints are no longer needed then, unless a signal keeps the caller from using what was trained.
        """
        try:
            if self._stop:
                self._save_latest(snapshot)
            else:
                self._checkpointer.wait()
        except UnavailableError as error:
            log.warning("the last checkpoint was not saved; the training is complete", reason=str(error))

    def _save_latest(self, snapshot: Snapshot | None) -> None:
        """Waits until the last finished epoch is checkpointed, if the grace period suffices for that."""
        try:
            self._checkpointer.wait()
        except UnavailableError as error:
            log.warning("a checkpoint was not saved; trying the newest one", reason=str(error))
            self._saved = 0
        newer = snapshot is not None and self._saved < len(snapshot.history)
        if snapshot is not None and newer and self._checkpointer.seconds < self._stop.seconds_left():
            self._save(snapshot)
            self._checkpointer.wait()

    def _save(self, snapshot: Snapshot) -> None:
        self._checkpointer.begin(lambda: snapshot.save(self._checkpoints))
        self._saved = len(snapshot.history)


def _room(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Returns room for float32 values on the device. On a CPU it is a mapped file that nobody else sees, whose pages the system writes to disk if
    memory gets short. Raises UnavailableError if the disk is full."""
    if device.type == "cuda":
        return torch.empty(shape, device=device)
    with tempfile.NamedTemporaryFile() as file, room_errors(Path(file.name)):
        os.posix_fallocate(file.fileno(), 0, math.prod(shape) * torch.float32.itemsize)
        return torch.from_file(file.name, shared=True, size=math.prod(shape)).reshape(shape)


def new_network(arm: Arm, data: TrainingData, seed: int) -> Network:
    """Returns a network to train: a copy of the data's trunk and a new head; `seed` is for their weights that are not pretrained."""
    trunk = data.trunk.copy()
    if arm.classifier.pretrained is False and trunk.trainable:
        fresh = build_trunk(arm.classifier, trunk.resolution, derived_seed("trunk", seed)).model.state_dict()
        trunk.model.load_state_dict({name: fresh[name] for name in trunk.trainable}, strict=False)
    torch.manual_seed(derived_seed("head", seed))
    head = build_head(trunk.features, arm.classifier.head, data.schema.width, arm.training.dropout)
    network = Network(trunk, head)
    move_to(network, data.device)
    return network


def apply_mixup(
    inputs: Tensor, targets: Sequence[Targets], partner: Tensor, share: Tensor
) -> tuple[Tensor, tuple[Targets, ...]]:
    """Returns the network's inputs after mixup: of activations (manifold mixup), or of pixels if nothing is frozen.

    `targets` share each image; of the mixed images, each of them has the share that both images leave it.
    """
    own = share.view(-1, *[1] * (inputs.dim() - 1)).to(inputs.dtype)
    everyone = torch.arange(len(inputs), device=inputs.device)
    others = inputs.index_select(0, partner)  # what inputs[partner] is, in a fraction of its time on a CPU
    mixed = [(each.take(everyone, share), each.take(partner, 1 - share)) for each in targets]
    return own * inputs + (1 - own) * others, tuple(each for pair in mixed for each in pair)


def unmasked_targets(labels: Tensor, groups: int) -> Targets:
    """Returns targets of real images: every group counts, and all images have the same weight."""
    n = len(labels)
    mask = torch.ones(n, groups, dtype=torch.bool, device=labels.device)
    return Targets(labels, mask, torch.ones(n, device=labels.device))


def validation_loss(schema: LabelSchema, arm: Arm, data: TrainingData, logits: Tensor, labels: Tensor) -> float:
    """Returns the loss by which arms are compared, of logits `[n, C]` for labels `[n, C]`: no smoothing, mixup or synthetic weights."""
    loss = Loss.for_validation(schema, arm.training, data.real_counts(), logits.device)
    return float(loss(logits, unmasked_targets(labels, len(schema.groups))))


@contextmanager
def _out_of_memory_errors(arm: Arm) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error).partition("\n")[0]
        on_gpu = isinstance(error, torch.OutOfMemoryError)
        if not (on_gpu or isinstance(error, MemoryError) or CPU_MEMORY in text):
            raise
        if on_gpu:
            torch.cuda.empty_cache()
        place = "the GPU's memory" if on_gpu else "memory"
        raise OutOfMemory(
            f"training.batch_size: {arm.training.batch_size} images do not fit {place} ({text}); lower it"
        ) from error
