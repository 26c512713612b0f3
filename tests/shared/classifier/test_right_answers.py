from __future__ import annotations

import numpy as np
import pytest
import torch

from shared.classifier.predictor import probabilities
from shared.classifier.right_answers import RightAnswers
from shared.data.schema import LabelSchema
from shared.metrics.classification import fast_scores
from tests.shared.classifier.test_loss import ANY, CPU, ONE, one_labels, targets


def test_right_answers_are_those_of_the_metric() -> None:
    schema = LabelSchema(groups=(*ONE.groups, *ANY.groups))
    labels = np.concatenate([one_labels(40, 2), np.random.default_rng(0).integers(-1, 2, (40, 2))], 1).astype(np.int8)
    labels[:7, :3] = -1
    logits = torch.randn(40, 7, generator=torch.Generator().manual_seed(1))
    right = RightAnswers(schema, CPU)
    shown = targets(labels, 3)
    for rows in torch.arange(40).split(16):
        right.add(logits[rows], shown.take(rows, torch.ones(len(rows))))
    expected = fast_scores(schema, probabilities(logits, schema), labels, np.array([0]))["accuracy"]
    assert right.accuracy() == pytest.approx(expected)
    masked = targets(labels, 3)
    masked.mask[:, 1:] = False
    only = RightAnswers(schema, CPU)
    only.add(logits, masked)
    known = labels[:, :3].max(axis=1) == 1
    answers = logits[:, :3].argmax(1).numpy() == labels[:, :3].argmax(1)
    assert only.accuracy() == pytest.approx(answers[known].mean())
    assert np.isnan(RightAnswers(schema, CPU).accuracy())
