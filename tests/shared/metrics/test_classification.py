"""Compares scores with scikit-learn, and tests those that are not defined."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
)

from shared.data.schema import LabelGroup, LabelSchema
from shared.errors import DataError
from shared.metrics.classification import best_thresholds, evaluate, fast_scores

SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="colour", classes=("red", "green", "blue")),
        LabelGroup(name="tags", kind="any", classes=("new", "worn")),
    )
)
RARE = np.array([2, 4])


def sample(seed: int = 0, n: int = 300, unknown: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities and labels, some of them unknown."""
    random = np.random.default_rng(seed)
    p = random.random((n, 5))
    p[:, :3] /= p[:, :3].sum(axis=1, keepdims=True)
    y = np.zeros((n, 5), np.int8)
    y[np.arange(n), random.integers(0, 3, n)] = 1
    y[random.random(n) < unknown, :3] = -1
    y[:, 3:] = random.choice([-1, 0, 1], (n, 2), p=[unknown, 0.5, 0.5 - unknown])
    return p.astype(np.float32), y


def test_a_one_group_agrees_with_scikit_learn() -> None:
    p, y = sample()
    found = evaluate(SCHEMA, p, y, RARE)
    known = y[:, 0] >= 0
    truth, named = y[known, :3].argmax(axis=1), p[known, :3].argmax(axis=1)
    group = found["groups"]["colour"]
    assert group["accuracy"] == pytest.approx(accuracy_score(truth, named))
    assert group["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, named))
    assert group["macro_f1"] == pytest.approx(f1_score(truth, named, average="macro"))
    assert group["nll"] == pytest.approx(log_loss(truth, p[known, :3]), rel=1e-5)
    for i, name in enumerate(("red", "green", "blue")):
        scores = found["classes"][f"colour/{name}"]
        assert scores["precision"] == pytest.approx(precision_score(truth, named, labels=[i], average="macro"))
        assert scores["recall"] == pytest.approx(recall_score(truth, named, labels=[i], average="macro"))
        assert scores["ap"] == pytest.approx(average_precision_score(truth == i, p[known, i]))
        assert scores["support"] == (truth == i).sum()


def test_an_any_group_agrees_with_scikit_learn() -> None:
    p, y = sample(1)
    thresholds = np.array([0.5, 0.5, 0.5, 0.3, 0.7])
    found = evaluate(SCHEMA, p, y, RARE, thresholds)
    right: list[np.ndarray] = []
    balanced = []
    for column, name in ((3, "new"), (4, "worn")):
        known = y[:, column] >= 0
        truth, named = y[known, column] == 1, p[known, column] >= thresholds[column]
        right.append(truth == named)
        balanced.append(balanced_accuracy_score(truth, named))
        assert found["classes"][f"tags/{name}"]["f1"] == pytest.approx(f1_score(truth, named))
        assert found["classes"][f"tags/{name}"]["ap"] == pytest.approx(average_precision_score(truth, p[known, column]))
    assert found["groups"]["tags"]["accuracy"] == pytest.approx(np.concatenate(right).mean())
    assert found["groups"]["tags"]["balanced_accuracy"] == pytest.approx(np.mean(balanced))
    entries = y[:, 3:] >= 0
    expected = log_loss(y[:, 3:][entries], p[:, 3:][entries].astype(float))
    assert found["groups"]["tags"]["nll"] == pytest.approx(expected, rel=1e-5)


def test_overall_scores_are_means_of_groups_and_classes() -> None:
    p, y = sample(2)
    found = evaluate(SCHEMA, p, y, RARE)
    groups, classes = found["groups"].values(), found["classes"]
    for name in ("accuracy", "balanced_accuracy", "majority_accuracy", "ece", "nll"):
        assert found[name] == pytest.approx(np.mean([group[name] for group in groups]))
    assert found["macro_f1"] == pytest.approx(np.mean([c["f1"] for c in classes.values()]))
    assert found["mean_average_precision"] == pytest.approx(np.mean([c["ap"] for c in classes.values()]))
    assert found["rare_macro_f1"] == pytest.approx(np.mean([classes[n]["f1"] for n in ("colour/blue", "tags/worn")]))


def test_fast_scores_are_those_of_evaluate() -> None:
    p, y = sample(3)
    whole = evaluate(SCHEMA, p, y, RARE)
    for name, value in fast_scores(SCHEMA, p, y, RARE).items():
        assert value == pytest.approx(whole[name])


def test_a_class_without_support_is_left_out_of_means() -> None:
    p, y = sample(4)
    y[y[:, 2] == 1, :3] = np.array([1, 0, 0], np.int8)  # no image is blue now
    found = evaluate(SCHEMA, p, y, RARE)
    assert found["classes"]["colour/blue"] == {"ap": None, "precision": None, "recall": None, "f1": None, "support": 0}
    present = [found["classes"][f"colour/{name}"]["f1"] for name in ("red", "green")]
    assert found["groups"]["colour"]["macro_f1"] == pytest.approx(np.mean(present))
    assert found["rare_macro_f1"] == pytest.approx(found["classes"]["tags/worn"]["f1"])


def test_nothing_known_is_none_and_json() -> None:
    p, y = sample(5)
    y[:, :3] = -1
    found = evaluate(SCHEMA, p, y, np.array([], np.int64))
    assert found["groups"]["colour"] == dict.fromkeys(found["groups"]["colour"])
    assert found["rare_macro_f1"] is None
    assert found["accuracy"] == pytest.approx(found["groups"]["tags"]["accuracy"])
    json.dumps(found, allow_nan=False)
    assert np.isnan(fast_scores(SCHEMA, p, y, np.array([], np.int64))["rare_macro_f1"])


def test_exact_match_needs_every_known_label_right() -> None:
    y = np.array([[1, 0, 0, 1, 0], [0, 1, 0, -1, 1], [-1, -1, -1, 0, 1], [-1] * 5], np.int8)
    p = np.array([[0.9, 0.1, 0, 0.8, 0.1], [0.2, 0.8, 0, 0.1, 0.9], [1, 0, 0, 0.2, 0.2], [1, 0, 0, 1, 1]])
    assert evaluate(SCHEMA, p, y, RARE)["exact_match"] == pytest.approx(2 / 3)  # the last image has no known label


def test_the_majority_is_that_of_training() -> None:
    y = np.array([[1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [0, 1, 0, 0, 0]], np.int8)
    p = np.full((3, 5), 0.2)
    assert evaluate(SCHEMA, p, y, RARE)["groups"]["colour"]["majority_accuracy"] == pytest.approx(2 / 3)
    found = evaluate(SCHEMA, p, y, RARE, train_counts=np.array([5, 9, 1, 1, 1]))
    assert found["groups"]["colour"]["majority_accuracy"] == pytest.approx(1 / 3)
    assert found["groups"]["tags"]["majority_accuracy"] == pytest.approx(5 / 6)


def test_calibration_error_of_known_cases() -> None:
    schema = LabelSchema(groups=(LabelGroup(name="g", classes=("a", "b")),))
    y = np.zeros((100, 2), np.int8)
    y[:70, 0] = y[70:, 1] = 1
    calibrated = np.tile([0.7, 0.3], (100, 1))
    assert evaluate(schema, calibrated, y, RARE[:0])["ece"] == pytest.approx(0.0, abs=1e-9)
    sure = np.tile([1.0, 0.0], (100, 1))
    assert evaluate(schema, sure, y, RARE[:0])["ece"] == pytest.approx(0.3)


def test_a_diverged_classifier_and_a_wrong_width_are_errors() -> None:
    p, y = sample(6)
    p[3, 1] = np.nan
    with pytest.raises(DataError, match=r"not finite for 1 of 300 images.*training\.lr"):
        evaluate(SCHEMA, p, y, RARE)
    with pytest.raises(DataError, match="another data set"):
        evaluate(SCHEMA, p[:, :4], y[:, :4], RARE)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10), st.sampled_from([-1, 0, 1])), min_size=1, max_size=40))
def test_no_threshold_beats_the_chosen_one(rows: list[Any]) -> None:
    p = np.full((len(rows), 5), 0.2)
    y = np.zeros((len(rows), 5), np.int8)
    p[:, 3], y[:, 3] = [a / 10 for a, _ in rows], [b for _, b in rows]
    chosen = best_thresholds(SCHEMA, p, y)
    assert chosen[:3].tolist() == [0.5] * 3
    known = y[:, 3] >= 0
    truth = y[known, 3] == 1
    if not truth.any():
        assert chosen[3] == 0.5
        return

    def f1(threshold: float) -> float:
        named = p[known, 3] >= threshold
        return float(2 * (named & truth).sum() / (named.sum() + truth.sum()))

    best = max(f1(t / 20) for t in range(-1, 22))
    assert f1(chosen[3]) == pytest.approx(best)
