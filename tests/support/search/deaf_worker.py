"""Runs a worker process whose objective ignores signals: after one epoch and a checkpoint it never returns."""

from __future__ import annotations

import time
from collections.abc import Sequence

from shared.search.storage import Database, quiet_optuna
from shared.search.worker import TrialHandle, Worker
from shared.stop import StopSignal
from tests.support.search.drill import Drill, DrillObjective, FolderTrialCheckpoints


class Deaf(DrillObjective):
    """Writes the file `deaf` when it begins to ignore signals."""

    def __call__(self, trial: TrialHandle) -> Sequence[float]:
        curve = self.drill.curve(trial.parameters, 1)
        self.save(trial, curve)
        trial.report(0, curve[0])
        (self.drill.folder / "deaf").touch()
        while True:
            time.sleep(0.1)


def run(drill: Drill) -> None:
    """Works, as the main function of a process."""
    stop = StopSignal(grace_seconds=1.0)
    stop.install()
    quiet_optuna()
    checkpoints = FolderTrialCheckpoints(drill.folder)
    database = Database(drill.url)
    Worker(database, drill.spec, checkpoints, stop).run(Deaf(drill))
