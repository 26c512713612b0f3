"""Runs `tailfill tune simulate`: a search with a trivial objective and real processes, which measures count, connections,
throughput and claim latency.
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
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from sqlalchemy import delete, select, text

from shared.artifacts import checkpoints
from shared.config.base import Section
from shared.config.search import FloatRange, Search
from shared.errors import ConfigError, TailfillError
from shared.isolation import isolated_children
from shared.log import Log, configure
from shared.search import statements
from shared.search.connections import workers_limit
from shared.search.coordinator import Coordinator, Outcome
from shared.search.heartbeat import Heartbeat
from shared.search.search_state import SearchSpec
from shared.search.storage import Database, quiet_optuna
from shared.search.tables import searches, studies
from shared.search.worker import TrialHandle, Worker
from shared.stop import StopSignal

_log = Log("simulate")


class Place(Section):
    """Defines what is searched: a point in the unit square."""

    x: float = 0.5
    y: float = 0.5


@dataclass(frozen=True)
class Simulated:
    """Holds the measurements of a simulation."""

    workers: int
    trials: int
    finished: int
    """Counts the complete and the pruned trials; it should equal `trials`."""
    failed: int
    seconds: float
    """Counts the seconds from the first worker's start to the last trial's end."""
    trials_a_second: float
    connections_peak: int
    claim_ms_median: float
    claim_ms_p99: float


def simulate(url: str, workers: int, trials: int) -> Simulated:
    """Runs `trials` trials of a trivial objective in `workers` processes, and removes them from the database afterwards.

    Raises ConfigError if the server allows too few connections or a newer tailfill created the tables.
    """
    quiet_optuna()
    search = Search(
        strategy="random",
        trials=trials,
        epochs=1,
        objective="val_loss",
        pruner="none",
        space={"x": FloatRange(low=0, high=1), "y": FloatRange(low=0, high=1)},
    )
    spec = SearchSpec(f"simulate-{uuid.uuid4().hex[:12]}", search, 0)
    database = Database(url)
    try:
        database.create_tables()
        _check_connections(url, database.label, workers)
        try:
            with tempfile.TemporaryDirectory() as folder:
                measured = _simulate(database, url, spec, workers, Path(folder))
        except BaseException:
            try:
                _remove(database, spec.name)
            except TailfillError as error:  # what ended the search matters more
                _log.warning("the simulated search stays in the database", search=spec.name, error=error)
            raise
        _remove(database, spec.name)
        return measured
    finally:
        database.close()


def _simulate(database: Database, url: str, spec: SearchSpec, workers: int, folder: Path) -> Simulated:
    # workers fork from a server that has imported this module, so that hundreds start in seconds and share its memory
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "alembic.command"])  # Optuna imports alembic for its first storage
    running: list[BaseProcess] = [context.Process(target=_work, args=(url, spec, folder)) for _ in range(workers)]
    over = threading.Event()
    connections: list[int] = []
    watch = threading.Thread(target=_watch_connections, args=(url, over, connections))
    started = time.monotonic()
    try:
        watch.start()
        with isolated_children():
            for process in running:
                process.start()
        outcome = Coordinator(database, spec, Place(), StopSignal()).run()
        seconds = time.monotonic() - started
        for process in running:
            process.join(60)
    finally:
        over.set()
        watch.join()
        for process in running:
            if process.is_alive():
                process.kill()
    claims = [second for path in folder.iterdir() for second in json.loads(path.read_bytes())]
    return _summary(spec.search.trials, workers, outcome, seconds, max(connections), claims)


def _summary(
    trials: int, workers: int, outcome: Outcome, seconds: float, connections: int, claims: list[float]
) -> Simulated:
    states = [trial.state for result in outcome.steps for trial in result.trials]
    milliseconds = sorted(1000 * second for second in claims)
    return Simulated(
        workers=workers,
        trials=trials,
        finished=states.count("complete") + states.count("pruned"),
        failed=states.count("failed"),
        seconds=seconds,
        trials_a_second=len(states) / seconds,
        connections_peak=connections,
        claim_ms_median=statistics.median(milliseconds),
        claim_ms_p99=milliseconds[int(0.99 * (len(milliseconds) - 1))],
    )


class _Distance:
    """Computes in no time how far a point is from a corner."""

    def prepare(self) -> None:
        """Builds nothing."""

    def __call__(self, trial: TrialHandle) -> float:
        distance = float(trial.parameters["x"] ** 2 + trial.parameters["y"] ** 2)
        trial.report(0, distance)
        return distance


class _NoTrialCheckpoints:
    """Saves nothing, since no trial is longer than an epoch."""

    key = "none"

    def save(self, name: str, files: Mapping[str, Path], values: checkpoints.Values) -> None:
        """Does nothing."""

    def load(self, key: str, name: str) -> None:
        """Returns None."""

    def discard(self, key: str, name: str) -> None:
        """Does nothing."""


def _work(url: str, spec: SearchSpec, folder: Path) -> None:
    """Works on trials, in a process of its own, until the search is closed; writes into the folder how long its claims took."""
    stop = StopSignal()
    stop.install()
    configure("text", logging.WARNING)  # people want to read the coordinator's progress, not a line per trial
    quiet_optuna()
    database = Database(url)
    try:
        worker = Worker(database, spec, _NoTrialCheckpoints(), stop)
        with Heartbeat(database, spec.name, "cpu", lambda: 0.0):
            worker.run(_Distance())
        (folder / f"{os.getpid()}.json").write_text(json.dumps(worker.claim_seconds))
    except TailfillError as error:
        _log.error(str(error))
        raise SystemExit(error.exit_code) from None
    finally:
        database.close()


def _watch_connections(url: str, over: threading.Event, connections: list[int]) -> None:
    database = Database(url)

    def count() -> int:
        with database.transaction() as connection:
            return int(connection.scalar(text(statements.COUNT_CONNECTIONS)) or 0)

    try:
        while not over.is_set():
            connections.append(database.call("counting connections", count))
            over.wait(0.2)
    finally:
        database.close()


def _check_connections(url: str, label: str, workers: int) -> None:
    limit = workers_limit(url, searches=1)
    if limit is not None and workers > limit:
        raise ConfigError(
            f"--workers {workers}: PostgreSQL at {label} has connections for {limit} workers, one each beside those of others; "
            "raise max_connections, put PgBouncer before it, or take fewer workers"
        )


def _remove(database: Database, name: str) -> None:
    def remove() -> None:
        with database.transaction() as connection:
            study = connection.scalar(select(studies.c.study_id).where(studies.c.study_name == name))
            connection.execute(delete(searches).where(searches.c.name == name))
        if study is not None:
            database.storage.delete_study(study)

    database.call("removing the simulated search", remove)
