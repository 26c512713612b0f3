"""Coordinators: strategies, budgets that change, and two at once."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from shared.config.base import Section
from shared.config.search import Budget, Choice, FloatRange
from shared.context import StopSignal
from shared.errors import ConfigError, InputError, Stopped
from shared.search.coordinator import Coordinator, Outcome
from shared.search.results import importance, trials_table
from shared.search.simulate import Drill, DrillObjective, FolderTrialCheckpoints, Place
from shared.search.storage import Database
from shared.search.worker import Worker


def run(
    drill: Drill, coordinators: int = 1, section: Section | None = None, **arguments: Any
) -> list[Outcome | Exception]:
    """Coordinators and one worker in threads, until all have ended."""
    ended: list[Outcome | Exception] = []

    def coordinate() -> None:
        database = Database(drill.url)
        try:
            ended.append(
                Coordinator(
                    database, drill.name, drill.search, drill.seed, section or Place(), StopSignal(), **arguments
                ).run()
            )
        except InputError as error:
            ended.append(error)
        finally:
            database.close()

    def work() -> None:
        database = Database(drill.url)
        try:
            worker = Worker(
                database, drill.name, drill.search, drill.seed, FolderTrialCheckpoints(drill.folder), StopSignal()
            )
            worker.run(DrillObjective(drill))
        finally:
            database.close()

    threads = [threading.Thread(target=coordinate) for _ in range(coordinators)]
    threads.append(threading.Thread(target=work))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ended


def outcome_of(ended: list[Outcome | Exception]) -> Outcome:
    (outcome,) = ended
    assert isinstance(outcome, Outcome), outcome
    return outcome


def with_search(drill: Drill, **values: Any) -> Drill:
    return dataclasses.replace(drill, search=drill.search.model_copy(update=values))


def states(database: Database, study: str) -> list[TrialState]:
    return [t.state for t in optuna.load_study(study_name=study, storage=database.storage).trials]


def test_two_coordinators_agree(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(trials=5)
    first, second = run(drill, coordinators=2)
    assert isinstance(first, Outcome)
    assert isinstance(second, Outcome)
    assert (first.parameters, first.value, first.number) == (second.parameters, second.value, second.number)
    assert states(database, drill.name) == [TrialState.COMPLETE] * 5


def test_run_again_finds_everything_done(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(trials=2)
    first = outcome_of(run(drill))
    again = Coordinator(database, drill.name, drill.search, drill.seed, Place(), StopSignal()).run()
    assert again.parameters == first.parameters
    assert len(states(database, drill.name)) == 2


def test_raised_and_lowered_budget_goes_on_with_the_same_study(
    database: Database, make_drill: Callable[..., Drill]
) -> None:
    drill = make_drill(trials=2, strategy="joint")
    outcome_of(run(drill))
    raised = outcome_of(run(with_search(drill, trials=5)))
    assert [t.number for t in raised.steps[0].trials] == [0, 1, 2, 3, 4]
    lowered = outcome_of(run(with_search(drill, trials=3)))
    assert len(lowered.steps[0].trials) == 5
    assert states(database, drill.name) == [TrialState.COMPLETE] * 5


def test_sequential_keeps_the_best_of_each_parameter(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(strategy="sequential", trials=4, sampler="qmc")
    outcome = outcome_of(run(drill))
    first, second = outcome.steps
    assert [step.step.label for step in outcome.steps] == ["0-x", "1-y"]
    assert {t.parameters["x"] for t in second.trials} == {first.best(drill.search).parameters["x"]}  # type: ignore[union-attr]
    assert len(first.trials) == len(second.trials) == 4
    assert outcome.value == min(t.value for t in second.trials if t.value is not None)
    shares = importance(outcome.steps)
    assert set(shares) == {"x", "y"}
    assert sum(shares.values()) == pytest.approx(1)
    table = trials_table(outcome.steps, ["x", "y"], ["val_loss"])
    assert table.num_rows == 8
    assert table["y"].null_count == 4
    assert len(table["curve"][0]) == 3


@pytest.mark.parametrize("y", [Choice(kind="choice", values=(0.0, 1.0)), FloatRange(low=0, high=1)])
@pytest.mark.parametrize("seed", range(3))
def test_grid_runs_each_point_once(
    database: Database, make_drill: Callable[..., Drill], seed: int, y: Choice | FloatRange
) -> None:
    """The study's own values, (0.5, 0.5), are no point of it and take none's place."""
    space = {"x": Choice(kind="choice", values=(0.0, 0.5, 1.0)), "y": y}
    trials = 20 if isinstance(y, Choice) else 6  # a range has as many levels as the trials bear
    drill = dataclasses.replace(make_drill(strategy="grid", trials=trials, space=space), seed=seed)
    outcome = outcome_of(run(drill))
    points = [(t.parameters["x"], t.parameters["y"]) for t in outcome.steps[0].trials]
    assert sorted(points) == [(x, y) for x in (0.0, 0.5, 1.0) for y in (0.0, 1.0)]
    assert importance(outcome.steps).keys() == {"x", "y"}


def test_warm_starts_come_after_the_defaults(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(strategy="joint", trials=3)
    outcome = outcome_of(run(drill, warm=[{"x": 0.3, "y": 0.7}]))
    assert [t.parameters for t in outcome.steps[0].trials][:2] == [{"x": 0.5, "y": 0.5}, {"x": 0.3, "y": 0.7}]


def test_warm_starts_of_a_grid_are_points_of_it(database: Database, make_drill: Callable[..., Drill]) -> None:
    space = {"x": Choice(values=(0.0, 1.0)), "y": Choice(values=(0.0, 1.0))}
    drill = make_drill(strategy="grid", trials=9, space=space, first_defaults=False)
    outcome = outcome_of(run(drill, warm=[{"x": 1.0, "y": 0.0}, {"x": 0.0}, {"y": 1.0, "x": 1.0}]))
    points = [(t.parameters["x"], t.parameters["y"]) for t in outcome.steps[0].trials]
    assert points[:2] == [(1.0, 0.0), (1.0, 1.0)]
    assert sorted(points) == [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]


def test_warm_starts_of_a_sequential_search_are_tried_in_each_step(
    database: Database, make_drill: Callable[..., Drill]
) -> None:
    drill = make_drill(strategy="sequential", trials=3, sampler="qmc")
    first, second = outcome_of(run(drill, warm=[{"x": 0.3, "y": 0.7}, {"y": 0.2}])).steps
    assert [t.parameters["x"] for t in first.trials][:2] == [0.5, 0.3]
    assert [t.parameters["y"] for t in second.trials] == [0.5, 0.7, 0.2]


@pytest.mark.parametrize(
    ("limits", "before", "reason"),
    [
        (Budget(wall_hours=1e-9), 0.0, "wall_hours of 1e-09 are over"),
        (Budget(gpu_hours=1.0), 3600.0, "gpu_hours of 1.0 are spent"),
    ],
)
def test_spent_budget_ends_the_search_without_new_trials(
    database: Database, make_drill: Callable[..., Drill], limits: Budget, before: float, reason: str
) -> None:
    drill = make_drill(trials=3)
    outcome_of(run(with_search(drill, trials=1)))
    ended = outcome_of(run(with_search(drill, budget=limits), study_gpu_seconds=lambda: before))
    assert reason in ended.ended
    assert len(ended.steps[0].trials) == 1
    assert outcome_of(run(drill)).ended == "complete"  # with a larger budget it goes on
    assert states(database, drill.name).count(TrialState.COMPLETE) == 3


def test_unknown_path_and_empty_space_are_refused(postgres_url: str, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(space={"z": Choice(kind="choice", values=(1, 2))})
    for each, match in ((drill, "z: there is no such value"), (with_search(drill, space={}), r"search\.space")):
        with pytest.raises(ConfigError, match=match):
            Coordinator(Database(postgres_url), each.name, each.search, 0, Place(), StopSignal())


def test_signal_ends_it(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill, stop = make_drill(), StopSignal()
    stop.set()
    with pytest.raises(Stopped):
        Coordinator(database, drill.name, drill.search, 0, Place(), stop).run()
