"""Computes the training loss: the mean over the label groups of a loss per group.

The paper does not say whether it adds or averages its six cross-entropies, but its figures do: the class that is right but not chosen has a
probability of at most 1/2, so at an accuracy of 70.89 % six of them, unweighted, add up to at least 6 · 0.2911 · ln 2 = 1.21, and it prints .674 (Table 3,
row 14).

A `one` group has cross-entropy, an `any` group binary cross-entropy per class. Unknown labels and unchecked groups of generated images
are masked, and each image has a weight.
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

COUNTED = 1 << 18
"""Sets how many images are counted at once."""


@dataclass(frozen=True)
class GroupLoss:
    """Describes the loss of one group."""

    name: str
    columns: slice
    one: bool
    weight: Tensor | None
    """Holds the class weights of cross-entropy, or the weights of the positives of binary cross-entropy, `[c]`."""
    shift: Tensor | None
    """Holds what is added to the logits in training (balanced softmax), `[c]`."""


@dataclass(frozen=True)
class Targets:
    """Holds the targets of a batch."""

    labels: Tensor
    """Holds 1, 0 or -1 (unknown), `[n, C]`."""
    mask: Tensor
    """Says whether a group counts, bool `[n, G]`."""
    weight: Tensor
    """Holds the weight of each image, float `[n]`."""

    def take(self, rows: Tensor, share: Tensor) -> Targets:
        """Returns the targets of these images, with weights multiplied by `share`, for mixup and soft labels."""
        return Targets(self.labels[rows], self.mask[rows], self.weight[rows] * share)


class Loss:
    """Computes the mean of the groups' losses, each a weighted mean over the images."""

    def __init__(self, groups: list[GroupLoss], label_smoothing: float) -> None:
        self._groups, self._smoothing = groups, label_smoothing

    @classmethod
    def of(
        cls, schema: LabelSchema, training: Training, counts: ClassCounts, drawn: ClassCounts, device: torch.device
    ) -> Loss:
        """Returns the loss that an epoch minimises.

        `counts` are those of the arm's effective training set. The class weights of `weighted` follow from them alone, as in equation 1 of
        the paper, which counts a class in the training set, however it is sampled. `drawn` are the expected counts of what the epoch
        draws, by their weight in the loss. The shift of `balanced_softmax` is the prior of the distribution that is trained on (Menon et
        al. 2021), so it changes if generated images are no longer used, and vanishes if the sampler already balances the classes.
        """
        return cls(_groups(schema, training, counts, drawn, device), training.label_smoothing)

    @classmethod
    def for_validation(cls, schema: LabelSchema, training: Training, real: ClassCounts, device: torch.device) -> Loss:
        """Returns the loss by which arms and trials are compared: no smoothing, no shift, and class weights (if any) of real images."""
        plain = training.model_copy(update={"loss": "weighted" if training.loss == "weighted" else "plain"})
        return cls(_groups(schema, plain, real, real, device), 0.0)

    def __call__(self, logits: Tensor, *targets: Targets) -> Tensor:
        """Returns the scalar loss of logits `[n, C]`; several targets (mixup, soft labels) share an image in proportion to their weights.

        The loss of a group is the sum of weight · loss over the images that count, divided by the sum of their weights times class
        weights. With one target, nothing masked and equal weights, that is `torch.nn.CrossEntropyLoss(weight, label_smoothing=…)`.
        """
        logits = logits.float()
        total = logits.new_zeros(())
        for position, group in enumerate(self._groups):
            shifted = logits[:, group.columns] if group.shift is None else logits[:, group.columns] + group.shift
            part = self._cross_entropy if group.one else self._binary
            sums = [part(shifted, t.labels[:, group.columns], t.weight * t.mask[:, position], group) for t in targets]
            numerator, denominator = (sum(s[i] for s in sums) for i in (0, 1))
            total = total + numerator / torch.as_tensor(denominator).clamp_min(1e-12)  # 0 / tiny if nothing is known
        return total / len(self._groups)

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
    """Counts each class in a set of images, `[C]`; the counts are fractions if the images have weights."""

    positive: NDArray[np.float64]
    known: NDArray[np.float64]
    """Counts the images for which it is known whether they have the class."""

    @classmethod
    def of(
        cls, labels: NDArray[np.int8], mask: NDArray[np.bool_], weight: NDArray[np.float64] | None = None
    ) -> ClassCounts:
        """Counts labels `[n, C]`, each with the `weight` of its image, `[n]`, or 1; `mask` `[n, C]` says which entries count."""
        weight = np.ones(len(labels)) if weight is None else weight
        total = cls(np.zeros(labels.shape[1]), np.zeros(labels.shape[1]))
        for start in range(0, len(labels), COUNTED):  # a product takes eight bytes for each entry
            part = slice(start, start + COUNTED)
            positive, known = (labels[part] == 1) & mask[part], (labels[part] >= 0) & mask[part]
            total = total.plus(cls(weight[part] @ positive, weight[part] @ known))
        return total

    def plus(self, other: ClassCounts) -> ClassCounts:
        """Returns the counts of both together."""
        return ClassCounts(self.positive + other.positive, self.known + other.known)


def _groups(
    schema: LabelSchema, training: Training, counts: ClassCounts, drawn: ClassCounts, device: torch.device
) -> list[GroupLoss]:
    groups = []
    for name, columns in schema.slices().items():
        one = schema.group(name).kind == "one"
        positive, known = counts.positive[columns], counts.known[columns]
        weight = shift = None
        if training.loss == "weighted":
            weight = class_weights(positive) if one else np.maximum(known - positive, 1) / np.maximum(positive, 1)
        elif training.loss == "balanced_softmax":
            positive, known = drawn.positive[columns], drawn.known[columns]
            present = _never_zero(positive)
            share, odds = present / max(known.max(initial=0), present.max()), present / _never_zero(known - positive)
            shift = training.tau * np.log(share if one else odds)
        groups.append(GroupLoss(name, columns, one, _tensor(weight, device), _tensor(shift, device)))
    return groups


def _never_zero(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the counts; a class that does not occur counts like one image, or like the rarest that occurs if that is less."""
    present = counts > 1e-9 * counts.max(initial=0)
    return np.where(present, counts, counts[present].min(initial=1.0))


def _tensor(values: NDArray[np.float64] | None, device: torch.device) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float32, device=device)
