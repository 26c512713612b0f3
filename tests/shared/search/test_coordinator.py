"""Tests coordinators: strategies, budgets that change, and two coordinators at once."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from shared.config.base import Section
from shared.config.search import Budget, Choice, FloatRange
from shared.errors import ConfigError, InputError, Stopped
from shared.search import budget
from shared.search.coordinator import Coordinator, Outcome
from shared.search.leases import Claim, Leases
from shared.search.results import importance, trials_table
from shared.search.search_state import read_search
from shared.search.storage import Database
from shared.search.worker import Worker
from shared.stop import StopSignal
from tests.support.search.drill import Drill, DrillObjective, FolderTrialCheckpoints, Place

SPENT = 3600.0


def run(
    drill: Drill, coordinators: int = 1, section: Section | None = None, **arguments: Any
) -> list[Outcome | Exception]:
    """Runs coordinators and one worker in threads, until all have ended."""
    ended: list[Outcome | Exception] = []

    def coordinate() -> None:
        database = Database(drill.url)
        try:
            ended.append(Coordinator(database, drill.spec, section or Place(), StopSignal(), **arguments).run())
        except InputError as error:
            ended.append(error)
        finally:
            database.close()

    def work() -> None:
        database = Database(drill.url)
        try:
            worker = Worker(database, drill.spec, FolderTrialCheckpoints(drill.folder), StopSignal())
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
    again = Coordinator(database, drill.spec, Place(), StopSignal()).run()
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
    """The study's own values (0.5, 0.5) are not a point of the grid, and replace none."""
    space = {"x": Choice(kind="choice", values=(0.0, 0.5, 1.0)), "y": y}
    trials = 20 if isinstance(y, Choice) else 6  # a range has as many levels as the number of trials allows
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
    assert outcome_of(run(drill)).ended == "complete"  # it continues with a larger budget
    assert states(database, drill.name).count(TrialState.COMPLETE) == 3


class ByHand:
    """Acts as a worker without a process: claims and ends trials when a test says so."""

    def __init__(self, database: Database, drill: Drill) -> None:
        self._database, self._name = database, drill.name
        self._leases = Leases(database, 60)
        self.held: list[Claim] = []

    def claim(self) -> None:
        """Claims a queued trial, after waiting for one."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            row = read_search(self._database, self._name)
            claim = None if row is None else self._leases.claim(self._name, row.study_id, "hand", "NVIDIA L4")
            if claim is not None:
                assert self._leases.start(claim)
                self.held.append(claim)
                return
            time.sleep(0.05)
        raise AssertionError("no trial to claim")

    def complete(self) -> None:
        """Ends the trial that it claimed first."""
        claim = self.held.pop(0)
        with self._database.guarded(self._leases.guard(claim)):
            self._database.storage.set_trial_state_values(claim.trial_id, TrialState.COMPLETE, [float(claim.trial_id)])
        self._leases.finish(claim)

    def checkpoint(self) -> None:
        """Has the lease of the trial that it claimed first name a checkpoint."""
        self._leases.checkpointed(self.held[0], 1, f"key/trial-{self.held[0].trial_id}-1-1")

    def give_back(self) -> None:
        """Queues that trial again."""
        self._leases.give_back(self.held.pop(0))


def coordinated(
    database: Database, drill: Drill, looks: Iterable[float] = (), stop: StopSignal | None = None
) -> tuple[Outcome, list[str]]:
    """Returns the outcome, and the checkpoints of unfinished trials.

    Each reading of the study's spending takes the next number of `looks`; after the last, the whole budget is spent.
    """
    spent = itertools.chain(looks, itertools.repeat(SPENT))
    coordinator = Coordinator(
        database,
        drill.spec,
        Place(),
        StopSignal() if stop is None else stop,
        study_gpu_seconds=lambda: next(spent),
    )
    return coordinator.run(), coordinator.unfinished_checkpoints()


def test_trial_claimed_just_before_the_closing_is_waited_for(
    database: Database, make_drill: Callable[..., Drill]
) -> None:
    drill = make_drill(trials=3, budget=Budget(gpu_hours=1))
    hand = ByHand(database, drill)

    def looks() -> Iterator[float]:
        yield 0.0  # and trials are queued
        hand.claim()  # after the coordinator has counted
        yield SPENT
        yield 0.0  # as if a result is committed between two readings
        row = read_search(database, drill.name)
        assert row is not None
        assert row.closed == "search.budget.gpu_hours of 1.0 are spent"
        hand.complete()

    outcome, _ = coordinated(database, drill, looks())
    assert outcome.ended == "search.budget.gpu_hours of 1.0 are spent"
    assert not hand.held
    assert trials_table(outcome.steps, ["x", "y"], ["val_loss"])["state"].to_pylist() == ["complete"]


class Pauses(StopSignal):
    """Calls a function in the pauses between a coordinator's rounds."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act

    def wait(self, seconds: float) -> bool:
        self._act()
        return super().wait(seconds)


@pytest.mark.parametrize("between", [False, True])
def test_search_that_has_its_trials_is_complete_whatever_is_spent(
    database: Database, make_drill: Callable[..., Drill], between: bool
) -> None:
    """The last trial ends during a round of the coordinator, or between two rounds."""
    drill = make_drill(trials=2, budget=Budget(gpu_hours=1))
    hand = ByHand(database, drill)
    stop = Pauses(lambda: hand.complete() if between and hand.held else None)

    def looks() -> Iterator[float]:
        yield 0.0
        hand.claim()
        hand.claim()
        hand.complete()
        yield SPENT  # while the last trial runs
        hand.complete()

    outcome, _ = coordinated(database, drill, looks(), stop)
    assert (outcome.ended, len(outcome.steps[0].trials)) == ("complete", 2)
    row = read_search(database, drill.name)
    assert row is not None
    assert row.closed == "complete"


def test_lowered_to_what_is_finished_it_is_complete_though_all_is_spent(
    database: Database, make_drill: Callable[..., Drill]
) -> None:
    drill = make_drill(trials=4, budget=Budget(gpu_hours=1))
    hand = ByHand(database, drill)

    def looks() -> Iterator[float]:
        yield 0.0
        hand.claim()
        hand.complete()
        hand.claim()
        hand.checkpoint()
        hand.give_back()

    assert coordinated(database, drill, looks())[0].ended == "search.budget.gpu_hours of 1.0 are spent"
    assert coordinated(database, with_search(drill, trials=1))[0].ended == "complete"
    assert states(database, drill.name) == [
        TrialState.COMPLETE,
        TrialState.WAITING,  # it has begun, and continues with a larger budget
        TrialState.FAIL,
        TrialState.FAIL,
    ]


@pytest.mark.parametrize("strategy", ["random", "sequential"])
def test_checkpoints_of_unfinished_trials_are_named(
    database: Database, make_drill: Callable[..., Drill], strategy: str
) -> None:
    drill = make_drill(trials=3, strategy=strategy, budget=Budget(gpu_hours=1))
    hand = ByHand(database, drill)
    named: list[str | None] = []

    def looks() -> Iterator[float]:
        yield 0.0
        hand.claim()
        hand.checkpoint()
        hand.complete()
        hand.claim()
        hand.checkpoint()
        named.append(hand.held[0].checkpoint)
        hand.give_back()

    outcome, unfinished = coordinated(database, drill, looks())
    assert outcome.ended == "search.budget.gpu_hours of 1.0 are spent"
    assert unfinished == named


@pytest.mark.parametrize("trials", [2, 1])
def test_lowered_while_a_trial_runs_withdraws_what_is_queued(
    postgres_url: str, database: Database, make_drill: Callable[..., Drill], trials: int
) -> None:
    """This happens at an upgrade of the chart: the coordinator with the larger number still runs when the other one starts."""
    drill, stops = make_drill(trials=5), (StopSignal(), StopSignal())
    hand = ByHand(database, drill)
    databases = [Database(postgres_url) for _ in stops]
    with ThreadPoolExecutor(2) as pool:
        try:
            earlier = pool.submit(coordinated, databases[0], drill, stop=stops[0])
            for _ in range(2):
                hand.claim()
            hand.complete()
            later = pool.submit(coordinated, databases[1], with_search(drill, trials=trials), stop=stops[1])
            time.sleep(0.5)
            stops[0].set()
            with pytest.raises(Stopped):
                earlier.result()
            study = optuna.load_study(study_name=drill.name, storage=database.storage)._study_id
            deadline = time.monotonic() + 10
            while budget.count(database, study)[None].queued:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert not later.done()
            hand.complete()
            outcome, unfinished = later.result(10)
        finally:
            for stop in stops:
                stop.set()
    for each in databases:
        each.close()
    counts = budget.count(database, study)[None]
    assert (outcome.ended, [trial.number for trial in outcome.steps[0].trials]) == ("complete", [0, 1])
    assert (counts.complete, counts.failed, counts.live, unfinished) == (2, 0, 2, [])


def test_unknown_path_and_empty_space_are_refused(postgres_url: str, make_drill: Callable[..., Drill]) -> None:
    drill = make_drill(space={"z": Choice(kind="choice", values=(1, 2))})
    for each, match in ((drill, "z: there is no such value"), (with_search(drill, space={}), r"search\.space")):
        with pytest.raises(ConfigError, match=match):
            Coordinator(Database(postgres_url), each.spec, Place(), StopSignal())


def test_signal_ends_it(database: Database, make_drill: Callable[..., Drill]) -> None:
    drill, stop = make_drill(), StopSignal()
    stop.set()
    with pytest.raises(Stopped):
        Coordinator(database, drill.spec, Place(), stop).run()
