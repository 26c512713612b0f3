from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from shared.classifier.loss import ClassCounts, Loss, Targets
from shared.config.training import Training
from shared.data.schema import LabelGroup, LabelSchema, class_weights

ONE = LabelSchema(groups=(LabelGroup(name="a", classes=("x", "y", "z")), LabelGroup(name="b", classes=("p", "q"))))
ANY = LabelSchema(groups=(LabelGroup(name="m", kind="any", classes=("x", "y")),))
CPU = torch.device("cpu")


def one_labels(n: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.int8]]:
    rng = np.random.default_rng(seed)
    labels = np.zeros((n, 5), np.int8)
    labels[np.arange(n), rng.integers(0, 3, n)] = 1
    labels[np.arange(n), 3 + rng.integers(0, 2, n)] = 1
    return labels


def targets(labels: np.ndarray[tuple[int, int], np.dtype[np.int8]], groups: int) -> Targets:
    n = len(labels)
    return Targets(torch.from_numpy(labels), torch.ones(n, groups, dtype=torch.bool), torch.ones(n))


@given(st.integers(0, 1000), st.floats(0, 0.5))
def test_weighted_is_the_papers_formula(seed: int, smoothing: float) -> None:
    labels = one_labels(12, seed)
    counts = ClassCounts.of(labels, np.ones_like(labels, bool))
    logits = torch.randn(12, 5, generator=torch.Generator().manual_seed(seed))
    loss = Loss.of(ONE, Training(loss="weighted", label_smoothing=smoothing), counts, counts, CPU)
    weight = torch.tensor(class_weights(counts.positive), dtype=torch.float32)
    expected = sum(
        torch.nn.CrossEntropyLoss(weight=weight[c], label_smoothing=smoothing)(
            logits[:, c], torch.from_numpy(labels[:, c]).argmax(1)
        )
        for c in (slice(0, 3), slice(3, 5))
    )
    assert torch.allclose(loss(logits, targets(labels, 2)), torch.as_tensor(expected) / 2, rtol=1e-5)


def test_what_is_masked_or_unknown_does_not_count() -> None:
    labels, logits = one_labels(6, 0), torch.randn(6, 5)
    counts = ClassCounts.of(labels, np.ones_like(labels, bool))
    loss = Loss.of(ONE, Training(loss="weighted"), counts, counts, CPU)
    kept = loss(logits[:4], targets(labels[:4], 2))
    unknown = labels.copy()
    unknown[4:] = -1
    masked = targets(labels, 2)
    masked.mask[4:] = False
    weightless = targets(labels, 2)
    weightless.weight[4:] = 0
    for other in (targets(unknown, 2), masked, weightless):
        assert torch.allclose(loss(logits, other), kept)
    nothing = targets(np.full_like(labels, -1), 2)
    assert float(loss(logits, nothing)) == 0


def test_balanced_softmax_is_cross_entropy_of_shifted_logits() -> None:
    labels, logits = one_labels(20, 3), torch.randn(20, 5)
    counts = ClassCounts.of(labels, np.ones_like(labels, bool))
    loss = Loss.of(ONE, Training(loss="balanced_softmax", tau=0.5), counts, counts, CPU)
    shift = 0.5 * torch.tensor(counts.positive / 20).log().float()
    expected = sum(
        F.cross_entropy(logits[:, c] + shift[c], torch.from_numpy(labels[:, c]).argmax(1))
        for c in (slice(0, 3), slice(3, 5))
    )
    assert torch.allclose(loss(logits, targets(labels, 2)), torch.as_tensor(expected) / 2)
    plain = Loss.for_validation(ONE, Training(loss="balanced_softmax", label_smoothing=0.3), counts, CPU)
    unshifted = sum(
        F.cross_entropy(logits[:, c], torch.from_numpy(labels[:, c]).argmax(1)) for c in (slice(0, 3), slice(3, 5))
    )
    assert torch.allclose(plain(logits, targets(labels, 2)), torch.as_tensor(unshifted) / 2)


def test_the_prior_of_balanced_softmax_is_that_of_what_is_drawn() -> None:
    logits = torch.zeros(1, 5)
    labels = np.array([[1, 0, 0, 1, 0]], np.int8)
    pool = ClassCounts(np.array([90.0, 9, 1, 50, 50]), np.full(5, 100.0))
    drawn = ClassCounts(np.array([40.0, 30, 0.5, 35.25, 35.25]), np.full(5, 70.5))
    loss = Loss.of(ONE, Training(loss="balanced_softmax"), pool, drawn, CPU)
    assert float(loss(logits, targets(labels, 2))) == pytest.approx((-np.log(40 / 70.5) - np.log(0.5)) / 2, abs=1e-6)
    absent = ClassCounts(np.array([40.0, 30.5, 0, 35.25, 35.25]), np.full(5, 70.5))
    loss = Loss.of(ONE, Training(loss="balanced_softmax"), pool, absent, CPU)
    assert float(loss(logits, targets(labels, 2))) == pytest.approx((-np.log(40 / 71.5) - np.log(0.5)) / 2, abs=1e-6)


def test_any_groups_have_masked_binary_cross_entropy() -> None:
    labels = np.array([[1, 0], [0, -1], [1, 1], [-1, -1]], np.int8)
    logits = torch.randn(4, 2)
    counts = ClassCounts.of(labels, np.ones_like(labels, bool))
    known = torch.from_numpy(labels >= 0)
    wanted = torch.from_numpy(labels == 1).float()
    plain = Loss.of(ANY, Training(loss="plain"), counts, counts, CPU)(logits, targets(labels, 1))
    assert torch.allclose(plain, F.binary_cross_entropy_with_logits(logits[known], wanted[known]))
    positives = torch.tensor([1 / 2, 1 / 1])  # negatives over positives
    weighted = Loss.of(ANY, Training(loss="weighted"), counts, counts, CPU)(logits, targets(labels, 1))
    each = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=positives, reduction="none")
    assert torch.allclose(weighted, each[known].mean())


@pytest.mark.parametrize("schema", [ONE, ANY])
def test_mixup_with_itself_changes_nothing(schema: LabelSchema) -> None:
    labels = one_labels(8, 1)[:, : schema.width]
    logits = torch.randn(8, schema.width)
    counts = ClassCounts.of(labels, np.ones_like(labels, bool))
    loss = Loss.of(schema, Training(label_smoothing=0.1), counts, counts, CPU)
    whole = targets(labels, len(schema.groups))
    everyone, share = torch.arange(8), torch.rand(8)
    mixed = loss(logits, whole.take(everyone, share), whole.take(everyone, 1 - share))
    assert torch.allclose(mixed, loss(logits, whole), rtol=1e-5)


def test_a_soft_label_is_cross_entropy_with_the_shares_of_its_classes() -> None:
    logits = torch.tensor([[0.2, -1.0, 0.7, 0.4, 0.1]])
    own, start = np.array([[0, 0, 1, 1, 0]], np.int8), np.array([[1, 0, 0, 1, 0]], np.int8)
    counts = ClassCounts.of(own, np.ones_like(own, bool))
    loss = Loss.of(ONE, Training(loss="plain"), counts, counts, CPU)
    whole = [targets(labels, 2) for labels in (own, start)]
    found = loss(logits, replace(whole[0], weight=torch.tensor([0.7])), replace(whole[1], weight=torch.tensor([0.3])))
    first = F.cross_entropy(logits[:, :3], torch.tensor([[0.3, 0.0, 0.7]]))
    second = F.cross_entropy(logits[:, 3:], torch.tensor([0]))
    assert float(found) == pytest.approx(float(first + second) / 2, abs=1e-6)


def test_counts_of_shares_add_up() -> None:
    own, start = np.array([[0, 0, 1], [1, 0, 0]], np.int8), np.array([[1, 0, 0], [1, 0, 0]], np.int8)
    mask, share = np.ones((2, 3), bool), np.array([0.75, 1.0])
    found = ClassCounts.of(own, mask, share).plus(ClassCounts.of(start, mask, 1 - share))
    assert found.positive.tolist() == [1.25, 0.0, 0.75]
    assert found.known.tolist() == [2.0, 2.0, 2.0]


def test_classes_are_counted_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, weight = np.array([[1, 0], [-1, 1], [0, 1]], np.int8), np.array([0.5, 1.0, 2.0])
    mask = np.array([[True, True], [True, True], [True, False]])
    for at_once in (1, 2, 100):
        monkeypatch.setattr("shared.classifier.loss.COUNTED", at_once)
        counts = ClassCounts.of(labels, mask, weight)
        assert (counts.positive.tolist(), counts.known.tolist()) == ([0.5, 1.0], [2.5, 1.5])
