from __future__ import annotations

import numpy as np
import pytest

from shared.data.schema import LabelGroup, LabelSchema
from shared.look.suspects import confident_learning, judge_labels, tells_apart

N = 240


def features(classes: int, spread: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = np.arange(N) % classes
    centres = rng.normal(size=(classes, 8))
    return (centres[truth] + spread * rng.normal(size=(N, 8))).astype(np.float32), truth


def one(classes: int) -> LabelSchema:
    return LabelSchema(groups=(LabelGroup(name="kind", classes=tuple("abcdef"[:classes])),))


def labels_of(given: np.ndarray, classes: int) -> np.ndarray:
    return np.where(given[:, None] < 0, -1, given[:, None] == np.arange(classes)).astype(np.int8)


def test_planted_errors_come_first_and_are_suspect_with_the_right_class() -> None:
    inputs, truth = features(4, spread=0.2)
    bad = np.arange(0, N, 25)
    given = truth.copy()
    given[bad] = (given[bad] + 1) % 4
    (found,) = judge_labels(inputs, labels_of(given, 4), one(4), np.arange(N))
    assert set(bad.tolist()) <= {each.image for each in found.ranking[: 2 * len(bad)]}
    suspects = {each.image: each for each in found.suspects}
    assert len(suspects) <= 2 * len(bad)
    for image in bad.tolist():
        assert suspects[image].suggested == "abcd"[truth[image]]
        assert suspects[image].confidence < suspects[image].probability
        assert suspects[image].margin == pytest.approx(
            (suspects[image].confidence - suspects[image].probability + 1) / 2
        )
    assert found.accuracy is not None
    assert found.accuracy > 0.9


def test_right_labels_of_classes_that_are_told_apart_are_not_suspect() -> None:
    inputs, truth = features(3, spread=0.05)
    (found,) = judge_labels(inputs, labels_of(truth, 3), one(3), np.arange(N))
    assert found.suspects == []
    assert len(found.ranking) == N


def test_labels_without_relation_to_the_images_are_not_judged() -> None:
    inputs, _ = features(3)
    given = np.random.default_rng(1).integers(0, 3, N)
    (found,) = judge_labels(inputs, labels_of(given, 3), one(3), np.arange(N))
    assert found.reason is not None
    assert "no better than chance" in found.reason
    assert found.suspects == []


def test_copies_of_one_image_do_not_vouch_for_each_other() -> None:
    """Puts a wrong label on an image and all its copies: only if they are in one fold is it seen to be wrong."""
    inputs, truth = features(3, spread=0.3)
    copies = np.flatnonzero(truth == 0)[:8]
    inputs[copies] = inputs[copies[0]]
    given = truth.copy()
    given[copies] = 1
    units = np.arange(N)
    units[copies] = copies[0]
    (kept,) = judge_labels(inputs, labels_of(given, 3), one(3), units)
    assert set(copies.tolist()) <= {each.image for each in kept.suspects}


def test_small_classes_and_unknown_labels_are_left_out() -> None:
    inputs, truth = features(2)
    given = truth.copy()
    given[:4], given[4:10] = 2, -1
    (found,) = judge_labels(inputs, labels_of(given, 3), one(3), np.arange(N))
    assert found.too_few == ("c",)
    assert {each.image for each in found.ranking} == set(range(10, N))


def test_each_class_of_a_multi_label_group_is_judged() -> None:
    inputs, truth = features(4, spread=0.2)
    labels = np.stack([truth % 2, truth // 2], axis=1).astype(np.int8)
    labels[7, 0] = 1 - labels[7, 0]
    schema = LabelSchema(groups=(LabelGroup(name="tags", kind="any", classes=("odd", "high")),))
    (found,) = judge_labels(inputs, labels, schema, np.arange(N))
    assert found.ranking[0].image == 7
    assert (found.ranking[0].given, found.ranking[0].suggested) == ("not odd", "odd")
    assert len(found.ranking) == 2 * N


def test_the_confident_joint_of_a_small_example() -> None:
    """Thresholds are the means 0.7 and 0.6 of the classes' own labels: the third image reaches that of the other class, the last none."""
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7], [0.5, 0.5]])
    given = np.array([0, 0, 0, 1, 1])
    assert confident_learning(probabilities, given).tolist() == [False, False, True, False, False]


def test_guessing_tells_nothing_apart() -> None:
    rng = np.random.default_rng(0)
    given = rng.integers(0, 5, 400)
    assert not tells_apart(rng.random((400, 5)), given)
    assert tells_apart(np.eye(5)[given], given)
    always = np.tile([0.9, 0.1], (100, 1))
    assert not tells_apart(always, np.arange(100) % 10 // 9)  # right for 90 %, as it always says the larger class
