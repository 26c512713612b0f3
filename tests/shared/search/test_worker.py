"""Tests one worker in this process: what an objective does, and what happens to its trial."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import text

from shared.errors import InputError, Stopped, UnavailableError
from shared.search.coordinator import Outcome
from shared.search.intermediate_values import read_values
from shared.search.leases import Leases
from shared.search.storage import Database
from shared.search.worker import NotFinite, TrialHandle, describe
from shared.stop import StopSignal
from tests.support.search import deaf_worker
from tests.support.search.drill import Drill, DrillObjective, processes
from tests.support.search.in_threads import Objective, coordinated, new_worker


def trials(database: Database, drill: Drill) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name=drill.name, storage=database.storage)
    found: list[optuna.trial.FrozenTrial] = study.trials
    return found


def test_runs_to_the_end(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(trials=4)
    with coordinated(drill) as ended:
        worker = new_worker(database, drill)
        worker.run(DrillObjective(drill))
    assert worker.done == 4
    (outcome,) = ended
    assert isinstance(outcome, Outcome)
    best = min(trials(database, drill), key=lambda t: t.values[0])
    assert (outcome.number, outcome.value, outcome.parameters) == (best.number, best.values[0], best.params)
    assert trials(database, drill)[0].params == {"x": 0.5, "y": 0.5}


def test_what_leases_count_is_not_counted_as_idle(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(trials=3)
    held: list[float] = []

    def objective(trial: TrialHandle) -> float:
        time.sleep(0.2)
        held.append(worker.held_seconds())
        return 1.0

    with coordinated(drill):
        worker = new_worker(database, drill)
        begun = time.monotonic()
        worker.run(Objective(objective))
        whole = time.monotonic() - begun
    assert [seconds > 0.2 * (i + 1) for i, seconds in enumerate(held)] == [True] * 3
    sql = "SELECT sum(used_seconds) FROM tailfill_leases l JOIN studies USING (study_id) WHERE study_name = :name"
    with database.transaction() as connection:
        leased = connection.scalar(text(sql), {"name": drill.name})
    assert 0.6 < leased <= worker.held_seconds() + 0.01 < whole


def test_not_a_number_is_a_failure_and_is_replaced(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(trials=3)

    def objective(trial: TrialHandle) -> float:
        if trial.number == 1:
            trial.report(0, float("nan"))
        return float("nan") if trial.number == 2 else 1.0

    with coordinated(drill):
        new_worker(database, drill).run(Objective(objective))
    found = trials(database, drill)
    assert [t.state for t in found].count(TrialState.COMPLETE) == 3
    failures = [t.user_attrs["failure"] for t in found if t.state == TrialState.FAIL]
    assert failures == ["diverged: the objective is nan in epoch 0", "diverged: the objective is nan"]


def test_same_error_three_times_ends_the_worker(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(trials=3, max_failures=2)

    def objective(trial: TrialHandle) -> float:
        raise MemoryError(f"no room for {1000 + trial.number} bytes")

    with (
        coordinated(drill) as ended,
        pytest.raises(InputError, match="3 trials in a row failed alike: out of memory: no room for"),
    ):
        new_worker(database, drill).run(Objective(objective))
    (error,) = ended
    assert "3 trials failed, search.max_failures is 2" in str(error)
    assert "the last failure: out of memory" in str(error)


def test_a_bug_in_the_objective_is_raised_as_it_is(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(trials=3, max_failures=2)

    def objective(trial: TrialHandle) -> float:
        # errors are the same if their classes are, whatever their messages
        raise ZeroDivisionError("abc"[trial.number])

    with coordinated(drill), pytest.raises(ZeroDivisionError):
        new_worker(database, drill).run(Objective(objective))
    assert trials(database, drill)[0].user_attrs["failure"] == "ZeroDivisionError: a"


def test_what_failed_a_trial_is_told_by_its_class_and_its_causes() -> None:
    import torch

    full = torch.OutOfMemoryError("CUDA out of memory")
    too_large = InputError("lower the batch size")
    too_large.__cause__ = full
    on_device = torch.AcceleratorError("CUDA error: see the manual")
    on_device.error_code = 2  # type: ignore[attr-defined]  # as torch sets it
    said = {
        MemoryError("no room"): "out of memory: no room",
        full: "out of memory: CUDA out of memory",
        too_large: "out of memory: lower the batch size",
        on_device: "out of memory: CUDA error: see the manual",
        NotFinite("the objective\n is nan"): "diverged: the objective is nan",
        RuntimeError("of memory, out of memory"): "RuntimeError: of memory, out of memory",
    }
    assert [describe(error) for error in said] == list(said.values())


def test_different_errors_do_not_end_it(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(trials=1, max_failures=9)

    def objective(trial: TrialHandle) -> float:
        if trial.number < 6:
            raise [ValueError, KeyError][trial.number % 2]("odd")
        return 1.0

    with coordinated(drill) as ended:
        new_worker(database, drill).run(Objective(objective))
    assert isinstance(ended[0], Outcome)


def test_signal_gives_the_same_trial_back(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(trials=1, epochs=5)
    stop = StopSignal()

    class Interrupted(DrillObjective):
        def __call__(self, trial: TrialHandle) -> Sequence[float]:
            inner = trial.report

            def report(epoch: int, value: float | Sequence[float]) -> None:
                inner(epoch, value)
                if epoch == 2:
                    stop.set()

            trial.report = report  # type: ignore[method-assign]
            return super().__call__(trial)

    with coordinated(drill):
        with pytest.raises(Stopped):
            new_worker(database, drill, stop).run(Interrupted(drill))
        (given,) = trials(database, drill)
        assert given.state == TrialState.WAITING
        assert sorted(given.intermediate_values) == [0, 1, 2]
        new_worker(database, drill).run(DrillObjective(drill))
    (ended,) = trials(database, drill)
    assert (ended.number, ended.params) == (given.number, given.params)
    assert read_values(ended) == dict(enumerate(drill.curve(ended.params, 5)))
    assert not list(drill.folder.glob("trial-*"))


def test_pruned_no_sooner_than_told(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(trials=6, epochs=6, pruner="median", prune_after=3, startup_trials=2)

    def objective(trial: TrialHandle) -> float:
        for epoch in range(6):
            trial.report(epoch, float(trial.number))  # each trial is worse than those before it
        return float(trial.number)

    with coordinated(drill) as ended:
        new_worker(database, drill).run(Objective(objective))
    found = trials(database, drill)
    pruned = [t for t in found if t.state == TrialState.PRUNED]
    assert isinstance(ended[0], Outcome)
    assert [t.number for t in found if t.state == TrialState.COMPLETE] == [0, 1]
    assert {tuple(t.intermediate_values) for t in pruned} == {(0, 1, 2, 3)}


def test_dropped_connections_are_replaced_beside_a_trial(
    database: Database, make_drill: Callable[..., Drill], postgres_url: str
) -> None:
    drill = make_drill(trials=1, epochs=4, lease_seconds=4.0)
    killer = Database(postgres_url)

    def objective(trial: TrialHandle) -> float:
        for epoch in range(4):
            _drop_all_but(killer)
            trial.report(epoch, 1.0)
        return 1.0

    with coordinated(drill) as ended:
        new_worker(database, drill).run(Objective(objective))
    killer.close()
    assert isinstance(ended[0], Outcome)
    assert len(trials(database, drill)) == 1


def _drop_all_but(database: Database) -> None:
    with database.transaction() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        )


def test_lost_lease_ends_the_work_without_a_report(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(trials=1, epochs=3)
    seen: list[int] = []

    def objective(trial: TrialHandle) -> float:
        seen.append(trial.number)
        if len(seen) == 1:
            with database.transaction() as connection:  # as the reaper does
                connection.execute(
                    text(
                        "UPDATE tailfill_leases SET state = 'queued', owner = NULL WHERE worker IS NOT NULL AND state = 'held'"
                    )
                )
            trial.report(0, 99.0)
        trial.report(0, 1.0)
        return 1.0

    with coordinated(drill):
        new_worker(database, drill).run(Objective(objective))
    (found,) = trials(database, drill)
    assert seen == [0, 0]
    assert found.intermediate_values == {0: 1.0}


def test_service_away_gives_the_trial_back(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(trials=1)

    def away(trial: TrialHandle) -> float:
        raise UnavailableError("the store is away")

    with coordinated(drill):
        with pytest.raises(UnavailableError):
            new_worker(database, drill).run(Objective(away))
        assert trials(database, drill)[0].state == TrialState.WAITING
        new_worker(database, drill).run(DrillObjective(drill))


def test_objective_that_does_not_stop_is_left(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(trials=1)
    process = processes().Process(target=deaf_worker.run, args=(drill,))
    with coordinated(drill):
        process.start()
        deadline = time.monotonic() + 60
        while not (drill.folder / "deaf").exists():
            assert process.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        process.join(30)
        assert process.exitcode == 143
        (left,) = trials(database, drill)
        assert (left.state, list(left.intermediate_values)) == (TrialState.WAITING, [0])
        new_worker(database, drill).run(DrillObjective(drill))
    (ended,) = trials(database, drill)
    assert (ended.number, ended.params) == (left.number, left.params)
    assert read_values(ended) == dict(enumerate(drill.curve(ended.params, 3)))
    assert json.loads((drill.folder / "begun.jsonl").read_text())["epochs"] == 1  # from the checkpoint that it saved


def test_waits_for_a_coordinator_but_not_for_ever(database: Database, make_drill: Callable[..., Drill]) -> None:
    with pytest.raises(UnavailableError, match="no coordinator has begun it"):
        new_worker(database, make_drill(), patience=0.1).run(Objective(lambda _: 0.0))


def test_renews_while_it_works(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(trials=1, lease_seconds=1.5)

    def slow(trial: TrialHandle) -> float:
        time.sleep(3.5)
        assert not trial.stop
        return 1.0

    with coordinated(drill) as ended:
        new_worker(database, drill).run(Objective(slow))
    assert isinstance(ended[0], Outcome)
    assert Leases(database, 0.001).reap(trials(database, drill)[0]._trial_id) == 0
