"""Runs and kills the processes that work on a drill, and checks how their search ends."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from typing import Any, TypeVar

from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text

from shared.errors import STOPPED
from shared.search.intermediate_values import read_values
from shared.search.storage import Database, quiet_optuna
from shared.search.worker import Worker
from shared.stop import StopSignal
from tests.support.search.drill import (
    BEGUN,
    Drill,
    DrillObjective,
    FolderTrialCheckpoints,
    processes,
    run_coordinator,
    run_worker,
)

T = TypeVar("T")
KILLED = -signal.SIGKILL


class Fleet:
    """Holds the processes of a drill. It is a context manager: none survives it."""

    def __init__(self, drill: Drill) -> None:
        self._drill = drill
        self._context = processes()
        self.workers: list[BaseProcess] = []
        self.coordinators: list[BaseProcess] = []
        self._told: set[int | None] = set()
        self.deaths: list[int] = []
        """The exit codes of workers that ended before the search did."""

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.workers, *self.coordinators):
            if process.is_alive():
                process.kill()
                process.join()

    def add_worker(self, run: Callable[[Drill], None] = run_worker, drill: Drill | None = None) -> BaseProcess:
        """Starts one more worker."""
        process = self._context.Process(target=run, args=(drill or self._drill,))
        process.start()
        self.workers.append(process)
        return process

    def add_coordinator(self) -> BaseProcess:
        """Starts one more coordinator."""
        process = self._context.Process(target=run_coordinator, args=(self._drill,))
        process.start()
        self.coordinators.append(process)
        return process

    def start_at_once(self, workers: int, coordinators: int) -> None:
        """Starts processes that begin at the same moment."""
        together = self._together = self._context.Barrier(
            workers + coordinators
        )  # kept: it ends with its last reference
        for number in range(workers + coordinators):
            run, members = (run_worker, self.workers) if number < workers else (run_coordinator, self.coordinators)
            process = self._context.Process(target=run_when_all_are_there, args=(together, run, self._drill))
            process.start()
            members.append(process)

    def strike(self, process: BaseProcess, number: int) -> None:
        """Sends a signal to a process that may have ended. One that got a signal before is killed, as Kubernetes kills a Pod."""
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL if process.pid in self._told else number)
            self._told.add(process.pid)

    def begun(self) -> list[dict[str, Any]]:
        """Returns the workers' records of the trials that they began or resumed."""
        path = self._drill.folder / BEGUN
        whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
        return [json.loads(line) for line in whole.splitlines()]

    def at_work(self) -> list[BaseProcess]:
        """Returns the workers whose trial has a checkpoint, or else those that have begun a trial, or else all.

        A signal to a worker that is still starting would interrupt nothing.
        """
        latest = {entry["worker"]: entry["number"] for entry in self.begun()}
        begun = [process for process in self.workers if process.pid in latest]
        kept = [process for process in begun if any(self._drill.folder.glob(f"trial-{latest[process.pid]}-*.json"))]
        return kept or begun or self.workers

    def restaff(self, workers: int) -> None:
        """Replaces the workers that have ended."""
        for process in list(self.workers):
            if not process.is_alive():
                self.workers.remove(process)
                self.deaths.append(process.exitcode or 0)
        while len(self.workers) < workers:
            self.add_worker()

    def outcome(self) -> dict[str, Any] | None:
        """Returns the result of a coordinator, or None while the search is running."""
        path = self._drill.folder / "outcome.json"
        return json.loads(path.read_bytes()) if path.exists() else None

    def until(self, look: Callable[[], T | None], seconds: float = 90.0) -> T:
        """Waits until `look` returns a truthy value, and returns it; raises AssertionError after so many seconds."""
        end = time.monotonic() + seconds
        while not (seen := look()):
            assert time.monotonic() < end, f"not reached after {seconds} s; {len(self.deaths)} workers ended"
            time.sleep(0.05)
        return seen

    def join(self, seconds: float) -> list[int | None]:
        """Waits for all processes, and returns the exit codes of all workers, also of those that were replaced."""
        end = time.monotonic() + seconds
        for process in (*self.workers, *self.coordinators):
            process.join(max(end - time.monotonic(), 0.1))
        return [*self.deaths, *(worker.exitcode for worker in self.workers)]


def run_when_all_are_there(together: Barrier, run: Callable[[Drill], None], drill: Drill) -> None:
    """Runs a process of `start_at_once`."""
    together.wait(120)
    run(drill)


def run_silent_worker(drill: Drill) -> None:
    """Works, as the main function of a process, without a heartbeat, so that each of its connections is for its work."""
    quiet_optuna()
    database, checkpoints = Database(drill.url), FolderTrialCheckpoints(drill.folder)
    Worker(database, drill.spec, checkpoints, StopSignal()).run(DrillObjective(drill))


def run_chaos(
    drill: Drill,
    workers: int,
    seconds: float,
    seed: int,
    strikes: int,
    restart: Callable[[], None] | None = None,
    restarts: int = 0,
    coordinator_kills: int = 0,
) -> dict[str, Any]:
    """Runs the drill's search to its end, and returns its outcome. Every second a worker is killed or stopped, `strikes` times.

    The server is restarted `restarts` times by `restart`. Raises AssertionError if the search has not ended within `seconds`.
    """
    rng = random.Random(seed)
    events = ["restart"] * restarts + ["coordinator"] * coordinator_kills
    rng.shuffle(events)
    end = time.monotonic() + seconds
    ticks = 0
    with Fleet(drill) as fleet:
        fleet.restaff(workers)  # before the coordinator starts
        fleet.add_coordinator()
        while fleet.outcome() is None:
            assert time.monotonic() < end, f"not over after {seconds} s; {len(fleet.deaths)} workers ended"
            time.sleep(1.0)
            if not fleet.begun():
                continue  # on a slow machine, workers may not have started yet
            ticks += 1
            if ticks <= strikes:
                fleet.strike(rng.choice(fleet.at_work()), rng.choice([signal.SIGKILL, signal.SIGTERM]))
            if events and ticks % 3 == 2:
                event = events.pop()
                if event == "restart":
                    assert restart is not None
                    restart()
                else:
                    fleet.strike(fleet.coordinators[-1], signal.SIGKILL)
                    fleet.add_coordinator()
            if fleet.outcome() is None:
                fleet.restaff(workers)
        assert not events, f"the search was over before {events}"
        codes = fleet.join(15)
        assert set(codes) <= {0, STOPPED, KILLED}, codes
        found = fleet.outcome()
    assert found is not None
    return found


def check_end(
    database: Database, drill: Drill, study: str | None = None, fixed: dict[str, Any] | None = None
) -> list[FrozenTrial]:
    """Checks that exactly the budget is finished, and that each trial has the values of an uninterrupted one; returns the trials.

    `study` is a step's, with the values that earlier ones `fixed`.
    """
    with database.transaction() as connection:
        name = drill.name if study is None else study
        number = connection.scalar(text("SELECT study_id FROM studies WHERE study_name = :n"), {"n": name})
        states = connection.execute(
            text("SELECT state, count(*) FROM tailfill_leases WHERE study_id = :s GROUP BY 1"), {"s": number}
        ).all()
    trials = database.storage.get_all_trials(number)
    assert {state for state, _ in states} == {"done"}, states
    finished = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    # none RUNNING, none WAITING, none failed
    assert len(finished) == len(trials) == drill.search.trials, [trial.state.name for trial in trials]
    assert [trial.number for trial in trials] == list(range(len(trials))), [trial.number for trial in trials]
    assert len({tuple(trial.params.values()) for trial in finished}) == len(finished), finished
    for trial in finished:
        curve = drill.curve({**(fixed or {}), **trial.params}, drill.search.epochs)
        assert read_values(trial) == dict(enumerate(curve)), (trial, curve)
        assert tuple(trial.values) == curve[-1], (trial, curve)
    return trials
