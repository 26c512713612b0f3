"""A search whose workers, coordinator and database go away at any moment ends with exactly its trials.

The small form is part of `make test`; `make chaos` runs the full one, `ROUNDS` times (20 by default).
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
import uuid
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from own_server import OwnServer
from sqlalchemy import text

from shared.config.search import FloatRange, Search
from shared.errors import STOPPED
from shared.search.reported import reported
from shared.search.simulate import Drill, processes, run_coordinator, run_worker
from shared.search.storage import Database

ROUNDS = int(os.environ.get("ROUNDS", "0"))
SPACE: dict[str, Any] = {"x": FloatRange(low=0, high=1), "y": FloatRange(low=0, high=1)}
KILLED = -signal.SIGKILL


class Fleet:
    """The processes of a drill."""

    def __init__(self, drill: Drill) -> None:
        self._drill = drill
        self._context = processes()
        self.workers: list[BaseProcess] = []
        self.coordinators: list[BaseProcess] = []
        self._told: set[int | None] = set()
        self.deaths: list[int] = []
        """Exit codes of workers that ended before the search did."""

    def add_worker(self) -> BaseProcess:
        """Starts one more."""
        process = self._context.Process(target=run_worker, args=(self._drill,))
        process.start()
        self.workers.append(process)
        return process

    def add_coordinator(self) -> BaseProcess:
        """Starts one more."""
        process = self._context.Process(target=run_coordinator, args=(self._drill,))
        process.start()
        self.coordinators.append(process)
        return process

    def strike(self, process: BaseProcess, number: int) -> None:
        """Sends a signal to a process that may be gone. Who was told to stop and is still there is killed, as a Pod is."""
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL if process.pid in self._told else number)
            self._told.add(process.pid)

    def at_work(self) -> list[BaseProcess]:
        """Workers that have begun a trial, or all while none has: a strike at one that still starts interrupts nothing."""
        path = self._drill.folder / "begun.jsonl"
        whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
        begun = {json.loads(line)["worker"] for line in whole.splitlines()}
        return [process for process in self.workers if process.pid in begun] or self.workers

    def restaff(self, workers: int) -> None:
        """Puts new workers in place of those that ended."""
        for process in list(self.workers):
            if not process.is_alive():
                self.workers.remove(process)
                self.deaths.append(process.exitcode or 0)
        while len(self.workers) < workers:
            self.add_worker()

    def outcome(self) -> dict[str, Any] | None:
        """What a coordinator found, or None while the search goes on."""
        path = self._drill.folder / "outcome.json"
        return json.loads(path.read_bytes()) if path.exists() else None

    def join(self, seconds: float) -> None:
        """Waits for all; nothing survives it."""
        end = time.monotonic() + seconds
        for process in (*self.workers, *self.coordinators):
            process.join(max(end - time.monotonic(), 0.1))

    def end(self) -> None:
        """Kills what is left."""
        for process in (*self.workers, *self.coordinators):
            if process.is_alive():
                process.kill()
                process.join()


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
    """Runs the drill's search to its end while every second a worker is killed or stopped, `strikes` times; returns its outcome.

    The server is restarted `restarts` times by `restart`. Raises AssertionError when it has not ended within `seconds`.
    """
    rng, fleet = random.Random(seed), Fleet(drill)
    fleet.restaff(workers)  # before there is a coordinator
    fleet.add_coordinator()
    events = ["restart"] * restarts + ["coordinator"] * coordinator_kills
    rng.shuffle(events)
    end = time.monotonic() + seconds
    ticks = 0
    try:
        while fleet.outcome() is None:
            assert time.monotonic() < end, f"not over after {seconds} s; {len(fleet.deaths)} workers ended"
            time.sleep(1.0)
            if not (drill.folder / "begun.jsonl").exists():
                continue  # a slow machine: strike what works, not what starts
            ticks += 1
            if ticks <= strikes:
                fleet.strike(rng.choice(fleet.at_work()), rng.choice([signal.SIGKILL, signal.SIGTERM]))
            if events and ticks % 4 == 2:
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
        fleet.join(30)
        codes = [*fleet.deaths, *(worker.exitcode for worker in fleet.workers)]
        assert set(codes) <= {0, STOPPED, KILLED}, codes
    finally:
        fleet.end()
    found = fleet.outcome()
    assert found is not None
    return found


def check_end(database: Database, drill: Drill) -> None:
    """Exactly the budget is finished, nothing is left open, and every trial has the values of an uninterrupted one."""
    with database.transaction() as connection:
        study = connection.scalar(text("SELECT study_id FROM studies WHERE study_name = :n"), {"n": drill.name})
        states = connection.execute(
            text("SELECT state, count(*) FROM tailfill_leases WHERE study_id = :s GROUP BY 1"), {"s": study}
        ).all()
    trials = database.storage.get_all_trials(study)
    assert {state for state, _ in states} == {"done"}
    finished = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(finished) == len(trials) == drill.search.trials  # none RUNNING, none WAITING, none failed
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert len({tuple(trial.params.values()) for trial in finished}) == len(finished)
    for trial in finished:
        curve = drill.curve(trial.params, drill.search.epochs)
        assert reported(trial) == dict(enumerate(curve))
        assert tuple(trial.values) == curve[-1]


def resumes(drill: Drill) -> list[int]:
    """Epochs that trials went on from, of those that had been begun before."""
    path = drill.folder / "begun.jsonl"
    begun = [json.loads(line) for line in path.read_text().splitlines()]
    return [entry["epochs"] for entry in begun if entry["epochs"] > 0]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("objective", "trials", "strikes"), [("val_loss", 20, 15), (("val_loss", "val_macro_f1"), 10, 7)]
)
def test_small_chaos(
    postgres_url: str, make_drill: Callable[..., Drill], objective: Any, trials: int, strikes: int
) -> None:
    drill = make_drill(
        epoch_seconds=0.15, objective=objective, trials=trials, epochs=6, max_retries=20, lease_seconds=2.0
    )
    outcome = run_chaos(drill, workers=4, seconds=100, seed=0, strikes=strikes, coordinator_kills=1)
    assert outcome["ended"] == "complete"
    database = Database(postgres_url)
    try:
        check_end(database, drill)
    finally:
        database.close()
    assert resumes(drill)


@pytest.mark.skipif(ROUNDS == 0, reason="the full form: `make chaos`, or ROUNDS=20")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_full_chaos(tmp_path: Path, seed: int) -> None:
    server = OwnServer(tmp_path / "postgres")
    search = Search(
        trials=60, epochs=8, objective="val_loss", sampler="tpe", pruner="none", space=SPACE, lease_seconds=3, max_retries=50,
        first_defaults=False,
    )  # fmt: skip
    (tmp_path / "drill").mkdir()
    drill = Drill(server.url, f"chaos-{uuid.uuid4().hex[:8]}", search, tmp_path / "drill", 0.25, seed)
    database = Database(drill.url)
    try:
        outcome = run_chaos(drill, 8, 240, seed, 45, server.restart, restarts=2, coordinator_kills=2)
        assert outcome["ended"] == "complete"
        check_end(database, drill)
    finally:
        database.close()
        server.stop()
    assert resumes(drill)
