"""Counts how often a network is right during an epoch of its training, for the training accuracy."""

from __future__ import annotations

import torch
from torch import Tensor

from shared.classifier.loss import Targets
from shared.data.schema import LabelSchema


class RightAnswers:
    """Counts the right answers of a network per label group on its device, without waiting for the device."""

    def __init__(self, schema: LabelSchema, device: torch.device) -> None:
        self._groups = [(columns, schema.group(name).kind == "one") for name, columns in schema.slices().items()]
        self._right = torch.zeros(len(self._groups), device=device)
        self._counted = torch.zeros(len(self._groups), device=device)

    @torch.no_grad()
    def add(self, logits: Tensor, targets: Targets) -> None:
        """Counts the answers of logits `[n, C]`: images with a known class (`one`), known entries (`any`), in groups that are not masked."""
        for position, (columns, one) in enumerate(self._groups):
            labels, answers = targets.labels[:, columns], logits[:, columns]
            if one:
                known, classes = labels.max(dim=1)
                counted = (known == 1) & targets.mask[:, position]
                right = answers.argmax(dim=1) == classes
            else:
                counted = (labels >= 0) & targets.mask[:, position, None]
                right = (answers > 0) == (labels == 1)
            self._right[position] += (right & counted).sum()
            self._counted[position] += counted.sum()

    def accuracy(self) -> float:
        """Returns the mean over the groups of the share of right answers; NaN if nothing was counted."""
        counted = self._counted > 0
        return float((self._right[counted] / self._counted[counted]).mean())
