"""Tests several objectives: the exact budget, the front, and which of its trials is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from shared.search import budget
from shared.search.coordinator import Coordinator, Outcome
from shared.search.intermediate_values import read_values
from shared.search.leases import Leases
from shared.search.monitor import SearchSnapshot, read_searches
from shared.search.results import TrialRecord, describe_front, importance, trials_table
from shared.search.search_state import SearchProgress, SearchStep, make_study, write_search
from shared.search.storage import Database
from shared.stop import StopSignal
from tests.support.search.drill import Drill, Place, processes, run_worker

OBJECTIVES = ("val_loss", "val_macro_f1")


@pytest.fixture
def drill(make_drill: Callable[..., Drill]) -> Drill:
    """Returns a drill whose first objective is minimised and whose second is maximised."""
    return make_drill(objective=OBJECTIVES, strategy="joint", trials=10, startup_trials=3)


def _run(database: Database, drill: Drill, workers: int) -> Outcome:
    running = [processes().Process(target=run_worker, args=(drill,)) for _ in range(workers)]
    for process in running:
        process.start()
    outcome = Coordinator(database, drill.spec, Place(), StopSignal()).run()
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0] * workers
    return outcome


def _beats(a: TrialRecord, b: TrialRecord) -> bool:
    better = [a.values[0] < b.values[0], a.values[1] > b.values[1]]
    as_good = [a.values[0] <= b.values[0], a.values[1] >= b.values[1]]
    return all(as_good) and any(better)


@pytest.mark.timeout(120)
def test_two_workers_find_the_front_with_exactly_the_trials(
    database: Database, drill: Drill, postgres_url: str
) -> None:
    outcome = _run(database, drill, workers=2)
    stored = optuna.load_study(study_name=drill.name, storage=database.storage).trials
    assert [trial.state for trial in stored] == [TrialState.COMPLETE] * 10
    for trial in stored:
        assert read_values(trial) == dict(enumerate(drill.curve(trial.params, 3)))
        assert tuple(trial.values) == read_values(trial)[2]

    trials = outcome.steps[0].trials
    front = [t for t in trials if not any(_beats(other, t) for other in trials)]
    assert outcome.front == front
    taken = min(front, key=lambda t: t.values[0])
    assert (outcome.number, outcome.value, outcome.parameters) == (taken.number, taken.values[0], taken.parameters)
    assert taken.values[0] == min(t.values[0] for t in trials)

    (seen,) = read_searches(postgres_url, f"^{drill.name}$")
    assert seen.front == len(front)
    assert seen.best == taken.values[0]
    assert seen.bests == (taken.values[0], max(t.values[1] for t in trials))

    told = describe_front(outcome.front, drill.search, {"z": 1})
    assert told["directions"] == {"val_loss": "minimize", "val_macro_f1": "maximize"}
    assert told["front"][0] == {
        "number": taken.number,
        "values": dict(zip(OBJECTIVES, taken.values, strict=True)),
        "parameters": {"z": 1, **taken.parameters},
    }
    assert [row["values"]["val_loss"] for row in told["front"]] == sorted(t.values[0] for t in front)

    table = trials_table(outcome.steps, ["x", "y"], OBJECTIVES)
    assert not {"value", "curve"} & set(table.column_names)
    assert table["value.val_macro_f1"].to_pylist() == [t.values[1] for t in trials]
    assert table["curve.val_macro_f1"][3].as_py() == [values[1] for values in trials[3].curve]
    assert [row["number"] for row in table.to_pylist() if row["front"]] == [t.number for t in front]
    assert sum(importance(outcome.steps).values()) == pytest.approx(1)


def test_an_onlooker_counts_the_front(database: Database, drill: Drill, postgres_url: str) -> None:
    """A lower first value and a higher second one are better; equal trials do not beat each other."""
    study = make_study(database, drill.name, drill.search)
    step = SearchStep(drill.name, "", ("x", "y"), {})
    write_search(database, drill.name, study._study_id, step, drill.search, None, SearchProgress("real", 2, 1, 1))

    def look() -> SearchSnapshot:
        (found,) = read_searches(postgres_url, f"^{drill.name}$")
        return found

    assert (look().bests, look().front) == ((), None)
    budget.fill(database, study, 5, [], repeat_failed=False)
    Leases(database, 60).adopt(study._study_id)
    for trial, values in zip(study.trials, [(1, 5), (1, 5), (2, 9), (2, 8), (0.5, 0)], strict=True):
        database.storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, values)
    assert (look().bests, look().best, look().front) == ((0.5, 9.0), 0.5, 4)


def test_importance_is_that_of_the_first_objective(database: Database, make_drill: Callable[..., Drill]) -> None:
    """It is the same as if the search had had that objective alone."""
    both, alone = (make_drill(objective=o, trials=12, epochs=1) for o in (OBJECTIVES, "val_loss"))
    shares = importance(_run(database, both, workers=1).steps)
    assert shares == importance(_run(database, replace(alone, name=f"{alone.name}-alone"), workers=1).steps)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "qmc"])
def test_samplers_that_follow_several_objectives(
    database: Database, make_drill: Callable[..., Drill], sampler: str
) -> None:
    drill = make_drill(objective=OBJECTIVES, strategy="joint", sampler=sampler, trials=5, epochs=1, startup_trials=2)
    assert len(_run(database, drill, workers=1).steps[0].trials) == 5
