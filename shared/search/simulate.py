"""A search with a trivial objective and real processes: shows the exact count, connections, throughput and claim latency.

The same processes serve the tests that kill them.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

from sqlalchemy import text

from shared.artifacts import checkpoints as checkpoint
from shared.artifacts.checkpoints import AsyncCheckpointer
from shared.config.base import Section
from shared.config.paths import with_parameters
from shared.config.search import FloatRange, Range, Search
from shared.errors import ConfigError, TailfillError
from shared.isolation import isolated_children
from shared.log import Log, configure
from shared.names import checked_part
from shared.search.coordinator import Coordinator
from shared.search.presence import Presence
from shared.search.reported import Values
from shared.search.storage import Database, quiet_optuna
from shared.search.worker import TrialHandle, Worker
from shared.stop import StopSignal

RESERVED_CONNECTIONS = 5  # coordinator, our own look at the server, and those that PostgreSQL keeps for its superuser

GOALS = ((0.3, 0.7), (0.8, 0.2))  # where each objective is least
BEGUN = "begun.jsonl"  # in a drill's folder: a line for each time that a worker takes a trial up

_log = Log("simulate")


class Place(Section):
    """What is searched: a point in the unit square."""

    x: float = 0.5
    y: float = 0.5


@dataclass(frozen=True)
class Drill:
    """A search to be run by real processes."""

    url: str
    name: str
    search: Search
    folder: Path
    """For checkpoints, and for what the processes tell of themselves."""
    epoch_seconds: float = 0.0
    seed: int = 0
    checkpoint_seconds: float = 0.0
    """What keeping a checkpoint takes."""

    def curve(self, parameters: Mapping[str, float], epochs: int) -> list[Values]:
        """The values that a trial reports, interrupted or not."""
        curve: list[Values] = []
        for epoch in range(epochs):
            curve.append(self.step(curve, parameters, epoch))
        return curve

    def step(self, curve: Sequence[Sequence[float]], parameters: Mapping[str, float], epoch: int) -> Values:
        """One epoch: what comes out depends on all epochs before it, so that a wrong resume shows. One value an objective."""
        place, goals = with_parameters(Place(), parameters), GOALS[: len(self.search.objectives)]
        before = curve[-1] if curve else [0.0] * len(goals)
        return tuple(
            0.5 * state + (place.x - x) ** 2 + (place.y - y) ** 2 / (epoch + 1)
            for state, (x, y) in zip(before, goals, strict=True)
        )

    def __repr__(self) -> str:
        return f"Drill({self.name})"  # the url holds a password


class FolderTrialCheckpoints:
    """Trials' checkpoints in a folder, each written as a whole."""

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        """`seconds` is what a save takes."""
        self.key = "folder"
        self._folder, self._seconds = folder, seconds

    def save(self, name: str, files: Mapping[str, Path], values: checkpoint.Values) -> None:
        """One file of JSON: the objective's state."""
        path = self._path(name)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(files["state.json"].read_bytes())
        temporary.replace(path)
        time.sleep(self._seconds)

    def load(self, key: str, name: str) -> tuple[dict[str, Path], checkpoint.Values] | None:
        """The state saved under that name."""
        path = self._path(name)
        return ({"state.json": path}, {}) if path.exists() else None

    def discard(self, key: str, name: str) -> None:
        """Removes it."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{checked_part(name, 'checkpoint of a trial')}.json"


class DrillObjective:
    """Sleeps an epoch at a time. As in a real training an epoch is reported, and then kept beside the next ones."""

    def __init__(self, drill: Drill) -> None:
        self._drill = drill

    def prepare(self) -> None:
        """Nothing to build."""

    def __call__(self, trial: TrialHandle) -> Sequence[float]:
        """The last epoch's values."""
        curve = self._earlier(trial)
        with AsyncCheckpointer() as keeper:
            kept = len(curve)
            for epoch in range(len(curve), self._drill.search.epochs):
                if trial.stop.wait(self._drill.epoch_seconds):
                    keeper.wait()
                    if kept < epoch:
                        self._save(trial, curve)
                    trial.stop.raise_if_set()
                curve.append(self._drill.step(curve, trial.parameters, epoch))
                trial.report(epoch, curve[-1])
                if self._due(len(curve)) and not keeper.busy():
                    keeper.begin(partial(self._save, trial, tuple(curve)))
                    kept = len(curve)
        return curve[-1]

    def _earlier(self, trial: TrialHandle) -> list[Sequence[float]]:
        """The epochs of the checkpoint that the lease names, each reported."""
        found = trial.checkpoints.load()
        curve: list[Sequence[float]] = json.loads(found[0]["state.json"].read_bytes()) if found else []
        self._note(trial, len(curve))
        for epoch, values in enumerate(curve):
            trial.report(epoch, values)
        return curve

    def _due(self, epochs: int) -> bool:
        return epochs % self._drill.search.checkpoint_every == 0 and epochs < self._drill.search.epochs

    def _save(self, trial: TrialHandle, curve: Sequence[Sequence[float]]) -> None:
        path = self._drill.folder / f"state.{os.getpid()}"
        path.write_text(json.dumps(curve))
        trial.checkpoints.save({"state.json": path}, epoch=len(curve))

    def _note(self, trial: TrialHandle, epochs: int) -> None:
        """That a worker begins, or goes on with, a trial, and where."""
        begun = {"number": trial.number, "epochs": epochs, "worker": os.getpid(), "at": time.time()}
        with (self._drill.folder / BEGUN).open("a") as file:
            file.write(json.dumps({**begun, "parameters": trial.parameters}) + "\n")


def run_worker(drill: Drill, grace_seconds: float = 10.0) -> None:
    """A worker process; ends with the exit code of its error."""
    _in_process(lambda stop: _work(drill, stop), grace_seconds=grace_seconds)


def run_quiet_worker(drill: Drill) -> None:
    """The same without a line a trial: the coordinator's progress is what a person wants to read."""
    _in_process(lambda stop: _work(drill, stop), logging.WARNING)


def run_coordinator(drill: Drill) -> None:
    """A coordinator process; leaves what it found in `outcome.json`."""
    _in_process(lambda stop: _coordinate(drill, stop))


def processes() -> multiprocessing.context.ForkServerContext:
    """Starts processes that have imported this module already, so that hundreds start in seconds and share its memory."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "alembic.command"])  # Optuna imports alembic with its first storage
    return context


@dataclass(frozen=True)
class Simulated:
    """What a simulation showed."""

    workers: int
    trials: int
    finished: int
    """Complete and pruned; equal to `trials`."""
    failed: int
    seconds: float
    """From the first worker's start to the last trial's end."""
    trials_a_second: float
    connections_peak: int
    claim_ms_median: float
    claim_ms_p99: float


def simulate(url: str, workers: int, trials: int, epochs: int = 1) -> Simulated:
    """Runs `trials` trials of a trivial objective by `workers` processes, and removes them from the database afterwards.

    Raises ConfigError where the server allows too few connections.
    """
    quiet_optuna()
    name = f"simulate-{uuid.uuid4().hex[:12]}"
    space: dict[str, Range] = {"x": FloatRange(low=0, high=1), "y": FloatRange(low=0, high=1)}
    search = Search(strategy="random", trials=trials, epochs=epochs, objective="val_loss", pruner="none", space=space)
    database = Database(url)
    try:
        database.create_tables()
        _enough_connections(database, workers)
        with tempfile.TemporaryDirectory() as folder:
            return _simulate(database, Drill(url, name, search, Path(folder)), workers)
    finally:
        _remove(database, name)
        database.close()


def _simulate(database: Database, drill: Drill, workers: int) -> Simulated:
    context = processes()
    running: list[BaseProcess] = [context.Process(target=run_quiet_worker, args=(drill,)) for _ in range(workers)]
    over = threading.Event()
    peak: list[int] = []
    watch = threading.Thread(target=_watch_connections, args=(drill.url, over, peak))
    started = time.monotonic()
    try:
        watch.start()
        with isolated_children():
            for process in running:
                process.start()
        outcome = Coordinator(database, drill.name, drill.search, drill.seed, Place(), StopSignal()).run()
        seconds = time.monotonic() - started
        for process in running:
            process.join(60)
    finally:
        over.set()
        watch.join()
        for process in running:
            if process.is_alive():
                process.kill()
    states = [trial.state for result in outcome.steps for trial in result.trials]
    claims = sorted(1000 * t for path in drill.folder.glob("claims-*.json") for t in json.loads(path.read_bytes()))
    return Simulated(
        workers=workers,
        trials=drill.search.trials,
        finished=states.count("complete") + states.count("pruned"),
        failed=states.count("failed"),
        seconds=seconds,
        trials_a_second=len(states) / seconds,
        connections_peak=max(peak),
        claim_ms_median=statistics.median(claims),
        claim_ms_p99=claims[int(0.99 * (len(claims) - 1))],
    )


def _in_process(work: Callable[[StopSignal], None], level: int = logging.INFO, grace_seconds: float = 10.0) -> None:
    stop = StopSignal(grace_seconds)
    stop.install()
    configure("text", level)
    quiet_optuna()
    try:
        work(stop)
    except TailfillError as error:
        _log.error(str(error))
        raise SystemExit(error.exit_code) from None


def _work(drill: Drill, stop: StopSignal) -> None:
    database = Database(drill.url)
    try:
        checkpoints = FolderTrialCheckpoints(drill.folder, drill.checkpoint_seconds)
        worker = Worker(database, drill.name, drill.search, drill.seed, checkpoints, stop)
        with Presence(database, drill.name, "cpu", lambda: 0.0):
            worker.run(DrillObjective(drill))
        (drill.folder / f"claims-{os.getpid()}.json").write_text(json.dumps(worker.claim_seconds))
    finally:
        database.close()


def _coordinate(drill: Drill, stop: StopSignal) -> None:
    database = Database(drill.url)
    try:
        outcome = Coordinator(database, drill.name, drill.search, drill.seed, Place(), stop).run()
    finally:
        database.close()
    path = drill.folder / f"outcome.{os.getpid()}"
    found = {"ended": outcome.ended, "parameters": outcome.parameters, "value": outcome.value, "number": outcome.number}
    path.write_text(json.dumps(found))
    path.replace(drill.folder / "outcome.json")


def _watch_connections(url: str, over: threading.Event, peak: list[int]) -> None:
    database = Database(url)
    sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname = current_database()"
    try:
        while not over.is_set():
            with database.transaction() as connection:
                peak.append(int(connection.scalar(text(sql)) or 0))
            over.wait(0.2)
    finally:
        database.close()


def _enough_connections(database: Database, workers: int) -> None:
    with database.transaction() as connection:
        allowed = int(connection.scalar(text("SHOW max_connections")) or 0)
    if workers + RESERVED_CONNECTIONS > allowed:
        raise ConfigError(
            f"--workers {workers}: PostgreSQL at {database.label} allows {allowed} connections, one a worker and "
            f"{RESERVED_CONNECTIONS} more are needed; raise max_connections, put PgBouncer before it, or take fewer workers"
        )


def _remove(database: Database, name: str) -> None:
    with database.transaction() as connection:
        study = connection.scalar(text("SELECT study_id FROM studies WHERE study_name = :name"), {"name": name})
        connection.execute(text("DELETE FROM tailfill_searches WHERE name = :name"), {"name": name})
    if study is not None:
        database.storage.delete_study(study)
