"""Defines a search with a short objective, which real processes run that tests may kill."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shared.artifacts import checkpoints
from shared.artifacts.checkpoints import AsyncCheckpointer
from shared.config.base import Section
from shared.config.paths import with_parameters
from shared.config.search import Search
from shared.config.seeds import hashed_seed
from shared.config.stages import Repetitions
from shared.errors import TailfillError
from shared.log import Log, configure
from shared.names import checked_part
from shared.search.coordinator import Coordinator
from shared.search.heartbeat import Heartbeat
from shared.search.intermediate_values import Values
from shared.search.search_state import SearchSpec
from shared.search.storage import Database, quiet_optuna
from shared.search.worker import TrialHandle, Worker
from shared.stop import StopSignal

GOALS = ((0.3, 0.7), (0.8, 0.2))  # where each objective is least
BEGUN = "begun.jsonl"  # in a drill's folder: one line for each time that a worker begins or resumes a trial

_log = Log("drill")


class Place(Section):
    """Holds the point in the unit square that is searched."""

    x: float = 0.5
    y: float = 0.5


@dataclass(frozen=True)
class Drill:
    """Describes a search that real processes run."""

    url: str
    name: str
    search: Search
    folder: Path
    """The folder for checkpoints, and for the files in which the processes record what they do."""
    epoch_seconds: float = 0.0
    seed: int = hashed_seed("experiment", 0, 0)
    """An experiment's seed, which is large."""
    checkpoint_seconds: float = 0.0
    """How long keeping a checkpoint takes."""
    repetitions: Repetitions | None = None

    @property
    def spec(self) -> SearchSpec:
        """Returns what its coordinators and workers are given."""
        return SearchSpec(self.name, self.search, self.seed, repetitions=self.repetitions)

    def curve(self, parameters: Mapping[str, float], epochs: int) -> list[Values]:
        """Returns the values that a trial reports, whether it is interrupted or not."""
        curve: list[Values] = []
        for epoch in range(epochs):
            curve.append(self.step(curve, parameters, epoch))
        return curve

    def step(self, curve: Sequence[Sequence[float]], parameters: Mapping[str, float], epoch: int) -> Values:
        """Returns the values of one epoch, one per objective. They depend on all earlier epochs, so that a wrong resume changes them."""
        place, goals = with_parameters(Place(), parameters), GOALS[: len(self.search.objectives)]
        before = curve[-1] if curve else [0.0] * len(goals)
        return tuple(
            0.5 * state + (place.x - x) ** 2 + (place.y - y) ** 2 / (epoch + 1)
            for state, (x, y) in zip(before, goals, strict=True)
        )

    def __repr__(self) -> str:
        return f"Drill({self.name})"  # the url holds a password


class FolderTrialCheckpoints:
    """Keeps trials' checkpoints in a folder, each written as a whole."""

    def __init__(self, folder: Path, seconds: float = 0.0) -> None:
        """Uses the folder; each save takes at least so many seconds."""
        self.key = "folder"
        self._folder, self._seconds = folder, seconds

    def save(self, name: str, files: Mapping[str, Path], values: checkpoints.Values) -> None:
        """Writes one file of JSON: the objective's state."""
        path = self._path(name)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_bytes(files["state.json"].read_bytes())
        temporary.replace(path)
        time.sleep(self._seconds)

    def load(self, key: str, name: str) -> tuple[dict[str, Path], checkpoints.Values] | None:
        """Returns the state saved under that name."""
        path = self._path(name)
        return ({"state.json": path}, {}) if path.exists() else None

    def discard(self, key: str, name: str) -> None:
        """Removes the checkpoint."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{checked_part(name, 'checkpoint of a trial')}.json"


class DrillObjective:
    """Sleeps in each epoch. As in a real training, an epoch is reported, and then saved while the next ones run."""

    def __init__(self, drill: Drill) -> None:
        self.drill = drill

    def prepare(self) -> None:
        """Builds nothing."""

    def __call__(self, trial: TrialHandle) -> Sequence[float]:
        """Returns the last epoch's values."""
        curve = self.resume(trial)
        with AsyncCheckpointer() as keeper:
            kept = len(curve)
            for epoch in range(len(curve), self.drill.search.epochs):
                if trial.stop.wait(self.drill.epoch_seconds):
                    keeper.wait()
                    if kept < epoch:
                        self.save(trial, curve)
                    trial.stop.raise_if_set()
                curve.append(self.drill.step(curve, trial.parameters, epoch))
                trial.report(epoch, curve[-1])
                if self._due(len(curve)) and not keeper.busy():
                    keeper.begin(partial(self.save, trial, tuple(curve)))
                    kept = len(curve)
        return curve[-1]

    def resume(self, trial: TrialHandle) -> list[Sequence[float]]:
        """Returns the epochs of the checkpoint that the lease names, after reporting each."""
        found = trial.checkpoints.load()
        curve: list[Sequence[float]] = json.loads(found[0]["state.json"].read_bytes()) if found else []
        self._note(trial, len(curve))
        for epoch, values in enumerate(curve):
            trial.report(epoch, values)
        return curve

    def save(self, trial: TrialHandle, curve: Sequence[Sequence[float]]) -> None:
        """Saves the epochs so far as a checkpoint."""
        path = self.drill.folder / f"state.{os.getpid()}"
        path.write_text(json.dumps(curve))
        trial.checkpoints.save({"state.json": path}, epoch=len(curve))

    def _due(self, epochs: int) -> bool:
        return epochs % self.drill.search.checkpoint_every == 0 and epochs < self.drill.search.epochs

    def _note(self, trial: TrialHandle, epochs: int) -> None:
        """Records that a worker begins or resumes a trial, and after how many epochs."""
        begun = {"number": trial.number, "epochs": epochs, "worker": os.getpid(), "at": time.time()}
        with (self.drill.folder / BEGUN).open("a") as file:
            file.write(json.dumps({**begun, "parameters": trial.parameters}) + "\n")


def run_worker(drill: Drill, grace_seconds: float = 10.0) -> None:
    """Works, as the main function of a process, until the search is closed; exits with the code of its error."""
    _in_process(lambda stop: _work(drill, stop), grace_seconds)


def run_coordinator(drill: Drill) -> None:
    """Coordinates, as the main function of a process; writes the result to `outcome.json`."""
    _in_process(lambda stop: _coordinate(drill, stop))


def processes() -> multiprocessing.context.ForkServerContext:
    """Returns a context whose processes have already imported our modules, so that they start at once and share memory."""
    context = multiprocessing.get_context("forkserver")
    # not this module: the server that forks them has no `tests` on its path
    context.set_forkserver_preload(["shared.search.coordinator", "shared.search.worker", "alembic.command"])
    return context


def _in_process(work: Callable[[StopSignal], None], grace_seconds: float = 10.0) -> None:
    stop = StopSignal(grace_seconds)
    stop.install()
    configure("text", logging.INFO)
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
        worker = Worker(database, drill.spec, checkpoints, stop)
        with Heartbeat(database, drill.name, "cpu", lambda: 0.0):
            worker.run(DrillObjective(drill))
    finally:
        database.close()


def _coordinate(drill: Drill, stop: StopSignal) -> None:
    database = Database(drill.url)
    try:
        outcome = Coordinator(database, drill.spec, Place(), stop).run()
    finally:
        database.close()
    path = drill.folder / f"outcome.{os.getpid()}"
    found = {"ended": outcome.ended, "parameters": outcome.parameters, "value": outcome.value, "number": outcome.number}
    path.write_text(json.dumps(found))
    path.replace(drill.folder / "outcome.json")
