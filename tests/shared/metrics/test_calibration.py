from __future__ import annotations

import numpy as np
import pytest

from shared.data.schema import LabelGroup, LabelSchema
from shared.metrics.calibration import LEAST, MOST, calibrated, calibrated_thresholds, fit_temperatures
from shared.metrics.classification import best_thresholds, evaluate
from shared.metrics.counts import decide

SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="kind", classes=("a", "b", "c")),
        LabelGroup(name="tags", kind="any", classes=("new", "sale")),
    )
)
PLAIN = {"kind": 1.0, "tags": 1.0}
NO_COLUMNS = np.zeros(0, np.int64)


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits `[n, C]`, and labels that were drawn with exactly their probabilities."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (n, SCHEMA.width))
    p = calibrated(SCHEMA, logits, PLAIN)
    labels = np.zeros((n, SCHEMA.width), np.int8)
    kinds = (random.random(n)[:, None] < p[:, :3].cumsum(axis=1)).argmax(axis=1)
    labels[np.arange(n), kinds] = 1
    labels[:, 3:] = random.random((n, 2)) < p[:, 3:]
    return logits.astype(np.float32), labels


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_it_finds_the_factor_by_which_logits_are_too_sure(factor: float) -> None:
    logits, labels = drawn(20_000)
    found = fit_temperatures(SCHEMA, logits * factor, labels)
    assert found == pytest.approx({"kind": factor, "tags": factor}, rel=0.06)


def test_it_is_the_minimum_of_the_likelihood_that_a_search_over_a_grid_finds() -> None:
    logits, labels = drawn(300, seed=3)
    logits = logits * 4
    found = fit_temperatures(SCHEMA, logits, labels)

    def loss(temperatures: dict[str, float]) -> list[float]:
        scores = evaluate(SCHEMA, calibrated(SCHEMA, logits, temperatures), labels, NO_COLUMNS)
        return [scores["groups"][name]["nll"] for name in ("kind", "tags")]

    grid = np.geomspace(LEAST, MOST, 400)
    least = np.array([loss({"kind": t, "tags": t}) for t in grid]).min(axis=0)
    assert (np.array(loss(found)) <= least + 1e-9).all()


def test_the_groups_have_temperatures_of_their_own() -> None:
    logits, labels = drawn(20_000)
    logits[:, :3] *= 2.5
    assert fit_temperatures(SCHEMA, logits, labels) == pytest.approx({"kind": 2.5, "tags": 1.0}, rel=0.06)


def test_unknown_labels_do_not_count() -> None:
    logits, labels = drawn(2_000)
    unknown = labels.copy()
    unknown[::2] = -1
    assert fit_temperatures(SCHEMA, logits, unknown) == pytest.approx(
        fit_temperatures(SCHEMA, logits[1::2], labels[1::2])
    )


def test_a_group_without_a_mistake_or_a_label_keeps_its_probabilities() -> None:
    logits, _ = drawn(20)
    right = np.zeros((20, SCHEMA.width), np.int8)
    right[np.arange(20), logits[:, :3].argmax(axis=1)] = 1
    right[:, 3:] = logits[:, 3:] > 0
    assert fit_temperatures(SCHEMA, logits, right) == PLAIN
    assert fit_temperatures(SCHEMA, logits, np.full_like(right, -1)) == PLAIN


def test_a_group_that_is_always_wrong_gets_the_greatest_temperature() -> None:
    logits, _ = drawn(50)
    wrong = np.zeros((50, SCHEMA.width), np.int8)
    wrong[np.arange(50), logits[:, :3].argmin(axis=1)] = 1
    wrong[:, 3:] = logits[:, 3:] < 0
    assert fit_temperatures(SCHEMA, logits, wrong) == pytest.approx({"kind": MOST, "tags": MOST}, rel=1e-3)


def test_probabilities_of_extreme_logits_are_finite_and_add_up() -> None:
    logits = np.array([[1e4, -1e4, 0, 1e4, -1e4]], np.float32)
    p = calibrated(SCHEMA, logits, {"kind": 0.05, "tags": 0.05})
    assert np.isfinite(p).all()
    assert p[0, :3].sum() == pytest.approx(1)
    assert p[0, 3:].tolist() == [1, 0]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 7.0])
def test_calibration_changes_no_decision(temperature: float) -> None:
    logits, labels = drawn(400, seed=5)
    before = calibrated(SCHEMA, logits, PLAIN)
    thresholds = best_thresholds(SCHEMA, before, labels)
    temperatures = {"kind": temperature, "tags": temperature}
    after = calibrated(SCHEMA, logits, temperatures)
    moved = calibrated_thresholds(SCHEMA, thresholds, temperatures)
    assert np.array_equal(decide(SCHEMA, before, thresholds), decide(SCHEMA, after, moved))


def test_metrics_of_calibrated_probabilities_stand_beside_those_before() -> None:
    logits, labels = drawn(5_000)
    before, after = (calibrated(SCHEMA, logits * 3, {"kind": t, "tags": t}) for t in (1.0, 3.0))
    scores = evaluate(SCHEMA, before, labels, NO_COLUMNS, calibrated=after)
    alone = evaluate(SCHEMA, after, labels, NO_COLUMNS)
    assert (scores["calibrated_ece"], scores["calibrated_nll"]) == (alone["ece"], alone["nll"])
    assert alone["ece"] < 0.03 < scores["ece"]
    assert scores["groups"]["tags"]["calibrated_nll"] == alone["groups"]["tags"]["nll"]
    assert alone["calibrated_ece"] is None
    assert scores["accuracy"] == alone["accuracy"]
