"""A worker in this process, with an objective that is a function, and a coordinator in a thread beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.errors import InputError, Stopped
from shared.search.coordinator import Coordinator, Outcome
from shared.search.simulate import Drill, FolderTrialCheckpoints, Place
from shared.search.storage import Database
from shared.search.worker import TrialHandle, Worker
from shared.stop import StopSignal


class Objective:
    """Calls a function."""

    def __init__(self, function: Callable[[TrialHandle], float]) -> None:
        self._function = function

    def prepare(self) -> None:
        """Nothing to build."""

    def __call__(self, trial: TrialHandle) -> float:
        return self._function(trial)


@contextmanager
def coordinated(drill: Drill) -> Iterator[list[Outcome | BaseException]]:
    """A coordinator in a thread beside; what it ended with."""
    ended: list[Outcome | BaseException] = []
    database, stop = Database(drill.url), StopSignal()

    def run() -> None:
        try:
            ended.append(Coordinator(database, drill.name, drill.search, drill.seed, Place(), stop).run())
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


def new_worker(database: Database, drill: Drill, stop: StopSignal | None = None) -> Worker:
    checkpoints = FolderTrialCheckpoints(drill.folder)
    return Worker(
        database,
        drill.name,
        drill.search,
        drill.seed,
        checkpoints,
        StopSignal() if stop is None else stop,
    )
