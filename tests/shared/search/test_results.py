"""Tests which points of a finished search another one tries first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from shared.config.search import Choice, FloatRange, IntRange, Range
from shared.search.results import ended_trials, warm_points
from shared.search.storage import Database
from shared.search.worker import TrialHandle
from tests.support.search.drill import Drill
from tests.support.search.in_threads import Objective, coordinated, new_worker

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


def test_the_trials_of_a_running_search(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(trials=3)
    assert ended_trials(drill.url, drill.name, drill.search) == []
    seen = list[int]()

    def work(trial: TrialHandle) -> float:
        seen.append(len(ended_trials(drill.url, drill.name, drill.search)))
        for epoch in range(3):
            trial.report(epoch, [0.5])
        return 0.5

    with coordinated(drill):
        new_worker(database, drill).run(Objective(work))
    assert seen == [0, 1, 2]
    rows = ended_trials(drill.url, drill.name, drill.search)
    assert [(row["number"], row["state"], len(row["curve"])) for row in rows] == [(n, "complete", 3) for n in range(3)]
    assert {"value", "x", "y", "seconds", "started"} <= rows[0].keys()
