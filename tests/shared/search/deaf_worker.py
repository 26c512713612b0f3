"""A worker process whose objective hears no signal: one epoch, a checkpoint, and then it never comes back."""

from __future__ import annotations

import time
from collections.abc import Sequence

from shared.search.simulate import Drill, DrillObjective, FolderTrialCheckpoints
from shared.search.storage import Database, quiet_optuna
from shared.search.worker import TrialHandle, Worker
from shared.stop import StopSignal


class Deaf(DrillObjective):
    """Leaves the file `deaf` when it is."""

    def __call__(self, trial: TrialHandle) -> Sequence[float]:
        curve = self._drill.curve(trial.parameters, 1)
        self._save(trial, curve)
        trial.report(0, curve[0])
        (self._drill.folder / "deaf").touch()
        while True:
            time.sleep(0.1)


def run(drill: Drill) -> None:
    """The process."""
    stop = StopSignal(grace_seconds=1.0)
    stop.install()
    quiet_optuna()
    checkpoints = FolderTrialCheckpoints(drill.folder)
    database = Database(drill.url)
    Worker(database, drill.name, drill.search, drill.seed, checkpoints, stop).run(Deaf(drill))
