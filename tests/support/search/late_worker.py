"""Runs a worker process whose third epoch takes long. If it loses its lease, it records that, and then tries all forbidden writes."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from shared.search.leases import LeaseLost
from shared.search.storage import Database, quiet_optuna
from shared.search.worker import TrialHandle, Worker
from shared.stop import StopSignal
from tests.support.search.drill import Drill, DrillObjective, FolderTrialCheckpoints

LATE = 99.0  # a value that must not be recorded
PATIENCE = 120.0


class Late(DrillObjective):
    """Writes the file `long` in that epoch, `stopped` when its trial is stopped, and `refused` at the end, after waiting for `mended`."""

    def __call__(self, trial: TrialHandle) -> Sequence[float]:
        folder = self.drill.folder
        curve = self.resume(trial) or self.drill.curve(trial.parameters, 2)
        for epoch, values in enumerate(curve):
            trial.report(epoch, values)
        self.save(trial, curve)
        (folder / "long").touch()
        if trial.stop.wait(PATIENCE):
            (folder / "stopped").touch()
        refused = [self._refused(trial)]
        end = time.monotonic() + PATIENCE
        while not (folder / "mended").exists() and time.monotonic() < end:
            time.sleep(0.05)
        refused.append(self._refused(trial))
        (folder / "refused").write_text(json.dumps(refused))
        return [LATE]

    def _refused(self, trial: TrialHandle) -> list[str]:
        """Returns the names of the writes that were refused."""
        refused = []
        try:
            trial.report(2, LATE)
        except LeaseLost:
            refused.append("report")
        try:
            self.save(trial, [[LATE]] * 3)
        except LeaseLost:
            refused.append("save")
        return refused


def run(drill: Drill) -> None:
    """Works, as the main function of a process."""
    stop = StopSignal()
    stop.install()
    quiet_optuna()
    database = Database(drill.url)
    checkpoints = FolderTrialCheckpoints(drill.folder)
    Worker(database, drill.spec, checkpoints, stop).run(Late(drill))
