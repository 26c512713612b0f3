"""Tests how a search space is expressed in Optuna's terms."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.search import Choice, FloatRange, IntRange, Range, Search
from shared.config.seeds import hashed_seed
from shared.config.training import Training
from shared.errors import ConfigError
from shared.search.space import (
    distributions,
    inside,
    make_pruner,
    make_sampler,
    own_values,
    planned_points,
    target,
)

SPACE: dict[str, Range] = {
    "lr": FloatRange(low=1e-4, high=1e-2, log=True),
    "batch_size": IntRange(kind="int", low=64, high=512),
    "optimizer": Choice(kind="choice", values=("adam", "adamw")),
}


def test_own_values_are_those_inside() -> None:
    space: dict[str, Range] = {**SPACE, "label_smoothing": FloatRange(low=1e-4, high=1e-2)}
    assert own_values(Training(), space) == {"lr": 3e-3, "batch_size": 256, "optimizer": "adam"}
    with pytest.raises(ConfigError, match=r"training\.lr"):
        own_values(Training(), {"training.lr": SPACE["lr"]})


def test_inside_tells_types_apart() -> None:
    switch = Choice(kind="choice", values=(True, 2))
    assert inside(switch, True)
    assert inside(switch, 2)
    assert not inside(switch, 1)
    assert not inside(IntRange(kind="int", low=0, high=2), 1.0)
    assert not inside(IntRange(kind="int", low=0, high=2), True)
    assert inside(FloatRange(low=0, high=2), 1)


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "qmc", "gp"])
def test_every_sampler_suggests(sampler: Any) -> None:
    search = Search(sampler=sampler, startup_trials=2, trials=6, space=SPACE)
    study = optuna.create_study()
    points = planned_points(search, SPACE, 0, {}, [], 6)
    for number in range(6):
        study.sampler = make_sampler(search, 0, number)
        if points:
            study.enqueue_trial(points[number])
        trial = study.ask(distributions(SPACE))
        assert all(inside(SPACE[path], value) for path, value in trial.params.items())
        study.tell(trial, float(trial.params["lr"]))
    assert (
        len({tuple(trial.params.values()) for trial in study.trials}) >= 4
    )  # near the optimum a sampler may repeat itself


@pytest.mark.parametrize("pruner", ["none", "median", "hyperband", "halving"])
def test_every_pruner_judges(pruner: Any) -> None:
    study = optuna.create_study(pruner=make_pruner(Search(pruner=pruner, startup_trials=1, prune_after=0, epochs=4)))
    pruned = 0
    for number in range(6):
        trial = study.ask()
        for epoch in range(4):
            trial.report(float(number), epoch)
        pruned += trial.should_prune()
        study.tell(trial, float(number))
    assert (pruned == 0) == (pruner == "none")


def test_planned_points_are_the_same_anywhere_and_each_once() -> None:
    for search in (Search(strategy="random", space=SPACE), Search(sampler="qmc", space=SPACE)):
        few, many = (
            planned_points(search, SPACE, hashed_seed("experiment", 3, 0), {"lr": 3e-3}, [{"lr": 5e-3}], n)
            for n in (5, 9)
        )
        assert many[: len(few)] == few
        assert few[:2] == [{"lr": 3e-3}, {"lr": 5e-3}]
        assert len({tuple(point.items()) for point in many}) == len(many) == 11


def test_sampled_searches_plan_only_what_is_given() -> None:
    assert planned_points(Search(space=SPACE), SPACE, 0, {"lr": 3e-3}, [], 9) == [{"lr": 3e-3}]


def test_grid_of_choices_has_no_more_trials_than_points() -> None:
    space: dict[str, Range] = {
        "a": Choice(kind="choice", values=(1, 2, 3)),
        "b": Choice(kind="choice", values=("x", "y")),
    }
    search = Search(strategy="grid", trials=15, space=space)
    points = planned_points(search, space, 0, {"a": 2, "b": "y"}, [], 15)
    assert target(search, space) == 6
    assert sorted((p["a"], p["b"]) for p in points) == [(a, b) for a in (1, 2, 3) for b in ("x", "y")]
    assert points[0] == {"a": 2, "b": "y"}


@given(number=st.integers(2, 40), low=st.integers(-5, 5), width=st.integers(1, 30), log=st.booleans())
def test_grid_points_lie_inside(number: int, low: int, width: int, log: bool) -> None:
    low = max(low, 1) if log else low
    space: dict[str, Range] = {
        "f": FloatRange(low=low, high=low + width, log=log),
        "i": IntRange(kind="int", low=low, high=low + width, log=log),
    }
    search = Search(strategy="grid", trials=number, space=space)
    points = planned_points(search, space, 1, {}, [], number)
    assert all(inside(space[path], value) for point in points for path, value in point.items())
    assert 2 <= target(search, space) <= number
