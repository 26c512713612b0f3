"""Tests Optuna's samplers and pruners by name, with a real worker and a real PostgreSQL: their effect on trials, and the exact count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from shared.search.coordinator import Outcome
from shared.search.storage import Database
from shared.search.worker import TrialHandle
from tests.support.search.drill import Drill
from tests.support.search.in_threads import Objective, coordinated, new_worker

MakeDrill = Callable[..., Drill]
EPOCHS = 10


def worse_and_worse(trial: TrialHandle) -> float:
    """Returns values with which each trial is worse than all before it, from the first epoch on."""
    for epoch in range(EPOCHS):
        trial.report(epoch, trial.number + 1 / (epoch + 1))
    return float(trial.number)


def run(
    database: Database, drill: Drill, objective: Callable[[TrialHandle], float]
) -> tuple[Outcome, list[FrozenTrial]]:
    """Runs the search with one worker, and returns the coordinator's outcome and the trials."""
    with coordinated(drill) as ended:
        new_worker(database, drill).run(Objective(objective))
    (outcome,) = ended
    assert isinstance(outcome, Outcome), outcome
    trials: list[FrozenTrial] = optuna.load_study(study_name=drill.name, storage=database.storage).trials
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert len(trials) == drill.search.trials
    return outcome, trials


@pytest.fixture
def own_database(database_url: str) -> Iterator[Database]:
    """Yields an empty database, so that the search has the same name in each run: Hyperband's brackets follow from it."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.mark.parametrize(
    ("pruner", "sampler", "prune_after", "last"),
    [
        ("median", "cmaes", 2, {2}),
        ("halving", "tpe", 2, {2, 6}),  # rungs: 2 and 3 times as much
        ("hyperband", "cmaes", 1, {1, 3, 9}),  # and each bracket has its first one later
        ("hyperband", "tpe", 3, {3, 9}),
    ],
)
def test_every_pruner_ends_trials_early(
    own_database: Database,
    database_url: str,
    make_drill: MakeDrill,
    pruner: str,
    sampler: str,
    prune_after: int,
    last: set[int],
) -> None:
    """It ends them only at its rungs. Pruned trials count, and are never the best."""
    drill = make_drill(
        strategy="joint", trials=14, epochs=EPOCHS, pruner=pruner, sampler=sampler, prune_after=prune_after, startup_trials=2
    )  # fmt: skip
    outcome, trials = run(own_database, replace(drill, url=database_url, name=pruner), worse_and_worse)
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert pruned
    assert {trial.last_step for trial in pruned} <= last
    assert min(trial.last_step or 0 for trial in pruned) == prune_after
    assert [trial.state for trial in trials[:2]] == [TrialState.COMPLETE] * 2
    assert (outcome.number, outcome.value) == (0, 0.0)


def test_cmaes_is_followed(database: Database, make_drill: MakeDrill) -> None:
    """All points after the first ones are from the sampler, over several generations."""
    drill = make_drill(strategy="joint", trials=24, epochs=1, sampler="cmaes", startup_trials=4)

    def distance(trial: TrialHandle) -> float:
        return float((trial.parameters["x"] - 0.3) ** 2 + (trial.parameters["y"] - 0.7) ** 2)

    _, trials = run(database, drill, distance)
    assert [trial.number for trial in trials if "cma:generation" not in trial.system_attrs] == [0, 1, 2, 3]
    generations = [trial.system_attrs["cma:generation"] for trial in trials[4:]]
    assert generations == sorted(generations)
    assert generations[-1] >= 2
