"""Runs a worker in this process, whose objective is a function, and a coordinator in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.errors import InputError, Stopped
from shared.search.coordinator import Coordinator, Outcome
from shared.search.storage import Database
from shared.search.worker import COORDINATOR_SECONDS, TrialHandle, Worker
from shared.stop import StopSignal
from tests.support.search.drill import Drill, FolderTrialCheckpoints, Place


class Objective:
    """Calls a function."""

    def __init__(self, function: Callable[[TrialHandle], float]) -> None:
        self._function = function

    def prepare(self) -> None:
        """Builds nothing."""

    def __call__(self, trial: TrialHandle) -> float:
        return self._function(trial)


@contextmanager
def coordinated(drill: Drill) -> Iterator[list[Outcome | BaseException]]:
    """Runs a coordinator in a thread beside the block; yields what it ends with."""
    ended: list[Outcome | BaseException] = []
    database, stop = Database(drill.url), StopSignal()

    def run() -> None:
        try:
            ended.append(Coordinator(database, drill.spec, Place(), stop).run())
        except (InputError, Stopped) as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield ended
        thread.join(20)
    finally:
        stop.set()
        thread.join()
        database.close()


def new_worker(
    database: Database, drill: Drill, stop: StopSignal | None = None, patience: float = COORDINATOR_SECONDS
) -> Worker:
    """Returns a worker that keeps checkpoints in the drill's folder."""
    checkpoints = FolderTrialCheckpoints(drill.folder)
    return Worker(database, drill.spec, checkpoints, StopSignal() if stop is None else stop, patience=patience)
