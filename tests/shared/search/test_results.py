"""Tests which points of a finished search another one tries first."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from shared.config.search import Choice, FloatRange, IntRange, Range
from shared.search.results import warm_points

SPACE: dict[str, Range] = {
    "lr": FloatRange(low=0.1, high=1),
    "batch": IntRange(kind="int", low=8, high=64),
    "optimizer": Choice(values=("adam", "adamw")),
}


def trials(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([{"number": n, "state": "complete", **row} for n, row in enumerate(rows)])


@pytest.mark.parametrize(("direction", "order"), [("minimize", [0.3, 0.4, 0.2]), ("maximize", [0.2, 0.3, 0.4])])
def test_the_best_come_first_and_only_completed_ones(direction: str, order: list[float]) -> None:
    table = trials(
        {"lr": 0.2, "value": 3.0},
        {"lr": 0.3, "value": 1.0},
        {"lr": 0.4, "value": 1.0},
        {"lr": 0.5, "value": 0.0, "state": "pruned"},
        {"lr": 0.6, "value": None, "state": "failed"},
    )
    assert warm_points(table, {"direction": direction}, SPACE) == [{"lr": lr} for lr in order]


def test_only_values_inside_the_space_are_taken() -> None:
    table = trials(
        {"lr": 0.05, "batch": 16, "optimizer": "adam", "dropout": 0.5, "value": 1.0},
        {"lr": 0.5, "batch": 128, "optimizer": "sgd", "dropout": 0.5, "value": 2.0},
        {
            "lr": 2.0,
            "batch": 7,
            "optimizer": None,
            "dropout": 0.5,
            "value": 3.0,
        },  # none of its values lies in the space
        {"lr": 0.5, "batch": 256, "optimizer": None, "dropout": 0.1, "value": 4.0},  # the same as the second
    )
    points = warm_points(table, {"direction": "minimize"}, SPACE)
    assert points == [{"batch": 16, "optimizer": "adam"}, {"lr": 0.5}]


def test_five_at_most() -> None:
    table = trials(*({"lr": 0.1 + 0.1 * n, "value": float(n)} for n in range(8)))
    assert [p["lr"] for p in warm_points(table, {"direction": "maximize"}, SPACE)] == pytest.approx(
        [0.8, 0.7, 0.6, 0.5, 0.4]
    )


def test_of_several_objectives_the_front_comes_first() -> None:
    table = trials(
        {"lr": 0.2, "value.a": 5.0, "value.b": 1.0, "front": False},
        {"lr": 0.3, "value.a": 1.0, "value.b": 0.0, "front": True},
        {"lr": 0.4, "value.a": 9.0, "value.b": 9.0, "front": True},
    )
    best = {"direction": "maximize", "directions": {"a": "maximize", "b": "minimize"}}
    assert [point["lr"] for point in warm_points(table, best, SPACE)] == [0.4, 0.3, 0.2]
