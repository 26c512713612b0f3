"""The loss a label group, with masks: unknown labels, generated images' unchecked groups, a weight an image.

A `one` group has cross-entropy, an `any` group binary cross-entropy a class; the groups' losses are summed (paper).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from shared.config.training import Training
from shared.data.schema import LabelSchema, class_weights


@dataclass(frozen=True)
class GroupLoss:
    """One group's part of the loss."""

    name: str
    columns: slice
    one: bool
    weight: Tensor | None
    """`[c]`: cross-entropy's class weights, or binary cross-entropy's weights of the positives."""
    shift: Tensor | None
    """`[c]`: added to the logits in training (balanced softmax)."""


@dataclass(frozen=True)
class Targets:
    """What a batch should give, for GroupLosses."""

    labels: Tensor
    """`[n, C]`, 1, 0 or -1 (unknown)."""
    mask: Tensor
    """Bool `[n, G]`: groups that count."""
    weight: Tensor
    """Float `[n]`: weight of the image."""

    def take(self, rows: Tensor, share: Tensor) -> Targets:
        """The targets of these images, their weights multiplied by `share`: mixup's partners."""
        return Targets(self.labels[rows], self.mask[rows], self.weight[rows] * share)


class Loss:
    """Sum over the groups of their weighted means."""

    def __init__(self, groups: list[GroupLoss], label_smoothing: float) -> None:
        self._groups, self._smoothing = groups, label_smoothing

    @classmethod
    def of(cls, schema: LabelSchema, training: Training, counts: ClassCounts, device: torch.device) -> Loss:
        """The loss that training minimises; `counts` are those of the arm's effective training set."""
        return cls(_groups(schema, training, counts, device), training.label_smoothing)

    @classmethod
    def for_validation(cls, schema: LabelSchema, training: Training, real: ClassCounts, device: torch.device) -> Loss:
        """The loss that arms and trials are compared by: no smoothing, no shift; class weights, where the loss has them, of real images."""
        plain = training.model_copy(update={"loss": "weighted" if training.loss == "weighted" else "plain"})
        return cls(_groups(schema, plain, real, device), 0.0)

    def __call__(self, logits: Tensor, *targets: Targets) -> Tensor:
        """Scalar loss of logits `[n, C]`; several targets (mixup) share the weight of an image by their own weights.

        Of a group: sum of weight · loss over the images that count, divided by the sum of their weights times class weights, which with
        one target, nothing masked and equal weights is `torch.nn.CrossEntropyLoss(weight, label_smoothing=…)`.
        """
        logits = logits.float()
        total = logits.new_zeros(())
        for position, group in enumerate(self._groups):
            shifted = logits[:, group.columns] if group.shift is None else logits[:, group.columns] + group.shift
            part = self._cross_entropy if group.one else self._binary
            sums = [part(shifted, t.labels[:, group.columns], t.weight * t.mask[:, position], group) for t in targets]
            numerator, denominator = (sum(s[i] for s in sums) for i in (0, 1))
            total = total + numerator / torch.as_tensor(denominator).clamp_min(1e-12)  # nothing known: 0 / tiny
        return total

    def _cross_entropy(self, logits: Tensor, labels: Tensor, weight: Tensor, group: GroupLoss) -> tuple[Tensor, Tensor]:
        known, classes = labels.max(dim=1)
        weight = weight * (known == 1)
        losses = F.cross_entropy(
            logits, classes, weight=group.weight, label_smoothing=self._smoothing, reduction="none"
        )
        counted = weight if group.weight is None else weight * group.weight[classes]
        return (weight * losses).sum(), counted.sum()

    def _binary(self, logits: Tensor, labels: Tensor, weight: Tensor, group: GroupLoss) -> tuple[Tensor, Tensor]:
        known = weight.unsqueeze(1) * (labels >= 0)
        wanted = (labels == 1).float() * (1.0 - self._smoothing) + 0.5 * self._smoothing
        losses = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=group.weight, reduction="none")
        return (known * losses).sum(), known.sum()


@dataclass(frozen=True)
class ClassCounts:
    """How often each class is seen, `[C]`."""

    positive: NDArray[np.int64]
    known: NDArray[np.int64]
    """Images of which it is known whether they have the class."""

    @classmethod
    def of(cls, labels: NDArray[np.int8], mask: NDArray[np.bool_]) -> ClassCounts:
        """Of labels `[n, C]`; `mask` `[n, C]` says which entries count."""
        return cls(((labels == 1) & mask).sum(axis=0), ((labels >= 0) & mask).sum(axis=0))


def _groups(schema: LabelSchema, training: Training, counts: ClassCounts, device: torch.device) -> list[GroupLoss]:
    groups = []
    for name, columns in schema.slices().items():
        one = schema.group(name).kind == "one"
        positive, known = counts.positive[columns], counts.known[columns]
        weight = shift = None
        if training.loss == "weighted":
            weight = class_weights(positive) if one else np.maximum(known - positive, 1) / np.maximum(positive, 1)
        elif training.loss == "balanced_softmax":
            share = np.maximum(positive, 1) / np.maximum(known.max(initial=1), 1)
            odds = np.maximum(positive, 1) / np.maximum(known - positive, 1)
            shift = training.tau * np.log(share if one else odds)
        groups.append(GroupLoss(name, columns, one, _tensor(weight, device), _tensor(shift, device)))
    return groups


def _tensor(values: NDArray[np.float64] | None, device: torch.device) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float32, device=device)
