"""A worker that goes from search to search, with coordinators of real searches on PostgreSQL beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from sqlalchemy import text

from shared.errors import Stopped, UnavailableError
from shared.search import visits
from shared.search.coordinator import Outcome
from shared.search.heartbeat import Heartbeat
from shared.search.search_state import read_search
from shared.search.storage import Database
from shared.search.visits import OpenSearch, Visits
from shared.search.worker import Objective, TrialHandle, Worker
from shared.stop import StopSignal
from tests.support.search.drill import Drill, DrillObjective, FolderTrialCheckpoints
from tests.support.search.in_threads import Objective as FunctionObjective
from tests.support.search.in_threads import coordinated


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "NEXT_STEP_SECONDS", 0.5)


def two(make_drill: Callable[..., Drill], **search: object) -> tuple[Drill, Drill]:
    first = make_drill(**search)
    return first, replace(first, name=f"{first.name}-second")


class Traveller:
    """What a worker process is, in a thread: one connection, and all the visits that it makes, by search."""

    def __init__(self, *drills: Drill, patience: float = 60.0, stop: StopSignal | None = None) -> None:
        self.stop, self._patience = StopSignal() if stop is None else stop, patience
        self.database = Database(drills[0].url)
        self.made: list[str] = []
        self.ended: list[str] = []
        self.workers: dict[str, Worker] = {}
        self.searches = [self.open(drill) for drill in drills]

    def open(self, drill: Drill, objective: Objective | None = None) -> OpenSearch:
        checkpoints = FolderTrialCheckpoints(drill.folder)
        worker = self.workers[drill.name] = Worker(
            self.database, drill.spec, checkpoints, self.stop, patience=self._patience
        )

        @contextmanager
        def visit() -> Iterator[Objective]:
            self.made.append(drill.name)
            with Heartbeat(self.database, drill.name, "cpu", lambda: 0.0):
                yield objective or DrillObjective(drill)

        return OpenSearch(drill.name, worker, visit, lambda: self.ended.append(drill.name))

    def run(self) -> None:
        try:
            Visits(lambda: self.searches).run()
        finally:
            self.database.close()

    def done(self, drill: Drill) -> int:
        return self.workers[drill.name].done


def finished(ended: Sequence[Outcome | BaseException]) -> int:
    (outcome,) = ended
    assert isinstance(outcome, Outcome)
    return sum(trial.state == "complete" for step in outcome.steps for trial in step.trials)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def begun(database: Database, drill: Drill) -> bool:
    row = read_search(database, drill.name)
    return row is not None and row.queued


def test_two_searches_and_one_worker(make_drill: Callable[..., Drill], database: Database) -> None:
    first, second = two(make_drill, trials=4)
    with coordinated(first) as one, coordinated(second) as other:
        wait_for(lambda: begun(database, first) and begun(database, second))
        traveller = Traveller(first, second)
        traveller.run()
    assert (finished(one), finished(other)) == (4, 4)
    assert (traveller.done(first), traveller.done(second)) == (4, 4)
    assert sorted(traveller.made) == sorted(traveller.ended) == [first.name, second.name]  # what is built is built once


def test_a_search_without_a_coordinator_keeps_no_worker_from_another(make_drill: Callable[..., Drill]) -> None:
    first, second = two(make_drill, trials=2)
    traveller = Traveller(first, second)
    thread = threading.Thread(target=traveller.run)
    with coordinated(second) as other:
        thread.start()
    assert finished(other) == 2  # though the first is not begun
    with coordinated(first) as one:
        thread.join(20)
    assert finished(one) == 2


def test_without_any_coordinator_it_gives_up(make_drill: Callable[..., Drill]) -> None:
    with pytest.raises(UnavailableError, match="no coordinator has begun it for 1 s"):
        Traveller(*two(make_drill), patience=1.0).run()


def test_a_search_that_comes_later_is_visited_too(make_drill: Callable[..., Drill]) -> None:
    first, second = two(make_drill, trials=3, epochs=2)
    traveller = Traveller(first)
    with ExitStack() as stack:
        (one, other) = [stack.enter_context(coordinated(drill)) for drill in (first, second)]

        def objective(trial: TrialHandle) -> float:
            if trial.number == 1 and len(traveller.searches) == 1:
                traveller.searches.append(traveller.open(second))
            return 1.0

        traveller.searches = [traveller.open(first, FunctionObjective(objective))]
        traveller.run()
    assert (finished(one), finished(other)) == (3, 3)
    assert traveller.made == [first.name, second.name]


def test_a_search_that_leaves_the_list_is_left_after_the_trial(
    make_drill: Callable[..., Drill], database: Database
) -> None:
    first, second = two(make_drill, trials=3)
    traveller = Traveller(first, second)

    def objective(trial: TrialHandle) -> float:
        traveller.searches = [search for search in traveller.searches if search.key == second.name]
        return 1.0

    traveller.searches = [traveller.open(first, FunctionObjective(objective)), traveller.open(second)]
    with coordinated(first) as one:
        wait_for(lambda: begun(database, first))
        with coordinated(second) as other:
            traveller.run()
        assert (traveller.done(first), finished(other)) == (1, 3)
        Traveller(first).run()
    assert finished(one) == 3


def test_two_workers_divide_two_searches(
    make_drill: Callable[..., Drill], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    drills = [replace(drill, epoch_seconds=0.2) for drill in two(make_drill, trials=6, epochs=3)]
    with ExitStack() as stack:
        ended = [stack.enter_context(coordinated(drill)) for drill in drills]
        wait_for(lambda: all(begun(database, drill) for drill in drills))
        travellers = [Traveller(*drills), Traveller(*drills)]
        threads = [threading.Thread(target=traveller.run) for traveller in travellers]
        threads[0].start()
        wait_for(lambda: sum(row.workers for drill in drills if (row := read_search(database, drill.name))))
        # to the other one, this thread is a process of its own
        monkeypatch.setattr("shared.search.heartbeat.worker_label", lambda: "host/other")
        threads[1].start()
        for thread in threads:
            thread.join(60)
    assert [finished(one) for one in ended] == [6, 6]
    assert travellers[0].made[0] != travellers[1].made[0]
    assert [sum(traveller.done(drill) for traveller in travellers) for drill in drills] == [6, 6]


def test_a_signal_gives_the_trial_back_and_ends_the_visits(
    make_drill: Callable[..., Drill], database: Database
) -> None:
    first, second = two(make_drill, trials=1)
    stop = StopSignal()

    def objective(trial: TrialHandle) -> float:
        stop.set()
        trial.stop.raise_if_set()
        return 1.0

    traveller = Traveller(first, second, stop=stop)
    traveller.searches = [traveller.open(drill, FunctionObjective(objective)) for drill in (first, second)]
    with coordinated(first) as one, coordinated(second) as other:
        with pytest.raises(Stopped):
            traveller.run()
        states = "SELECT count(*) FROM tailfill_leases WHERE state = 'held'"
        with database.transaction() as connection:
            assert (
                connection.scalar(
                    text(
                        f"{states} AND study_id IN (SELECT study_id FROM tailfill_searches WHERE name LIKE '{first.name}%')"
                    )
                )
                == 0
            )
        Traveller(first, second).run()
    assert (finished(one), finished(other)) == (1, 1)


def test_the_heartbeat_says_where_a_worker_is(make_drill: Callable[..., Drill], database: Database) -> None:
    first, second = two(make_drill, trials=1)
    seen: dict[str, list[int]] = {}

    def note(name: str) -> Objective:
        def objective(trial: TrialHandle) -> float:
            rows = [read_search(database, drill.name) for drill in (first, second)]
            seen[name] = [row.workers if row else 0 for row in rows]
            return 1.0

        return FunctionObjective(objective)

    traveller = Traveller(first, second)
    traveller.searches = [traveller.open(drill, note(drill.name)) for drill in (first, second)]
    with coordinated(first), coordinated(second):
        wait_for(lambda: begun(database, first) and begun(database, second))
        traveller.run()
    assert seen == {first.name: [1, 0], second.name: [0, 1]}
