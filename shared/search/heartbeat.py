"""Shows that a worker is alive, even while it holds no trial: its heartbeat renews a row in `tailfill_workers` from a thread.

It also renews a row in `tailfill_idle`, which counts the seconds in which the worker had a GPU and no trial. That row stays.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Connection, delete, func
from sqlalchemy.dialects.postgresql import insert

from shared.errors import TailfillError
from shared.log import Log
from shared.search.storage import Database
from shared.search.tables import NOW, idle, workers

HEARTBEAT_SECONDS = 15.0  # between two beats
FORGOTTEN = timedelta(days=1)
_log = Log("tune")


def worker_label() -> str:
    """Returns `host/process`, by which leases, heartbeats and messages name this worker."""
    return f"{socket.gethostname()}/{os.getpid()}"


class Heartbeat:
    """Shows that this process is alive while the `with` block runs; uses the worker's own connection.

    Monitors read it, and workers that choose a search. A beat that fails is only logged, since leases decide who holds a trial.
    """

    def __init__(self, database: Database, search: str, device: str, idle_seconds: Callable[[], float]) -> None:
        """Takes `idle_seconds`, which returns for how many seconds in all the process has been without a trial."""
        self._database, self._search, self._device = database, search, device
        self._idle_seconds, self._process = idle_seconds, uuid.uuid4()
        self._over = threading.Event()
        self._seen = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> None:
        self._seen = self._try("writing the heartbeat", self._beat)  # at once: other workers choose a search by it
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._seen:
            self._try("ending the heartbeat", self._leave)

    def _run(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            self._seen = self._try("writing the heartbeat", self._beat)

    def _try(self, what: str, write: Callable[[], bool]) -> bool:
        try:
            return self._database.call(what, write, patience=0)
        except TailfillError as error:
            _log.warning("heartbeat not written", reason=str(error))
            return False

    def _beat(self) -> bool:
        if not self._database.has_tables():
            return False
        with self._database.transaction() as connection:
            seen = {"search": self._search, "device": self._device, "seen_at": NOW}
            connection.execute(
                insert(workers)
                .values(worker=worker_label(), **seen)
                .on_conflict_do_update(index_elements=[workers.c.worker], set_=seen)
            )
            self._note_idle(connection)
        return True

    def _note_idle(self, connection: Connection) -> None:
        if self._device != "cpu":
            row = insert(idle).values(process=self._process, search=self._search, gpu_seconds=self._idle_seconds())
            longer = func.greatest(idle.c.gpu_seconds, row.excluded.gpu_seconds)
            connection.execute(row.on_conflict_do_update(index_elements=[idle.c.process], set_={"gpu_seconds": longer}))

    def _leave(self) -> bool:
        with self._database.transaction() as connection:
            self._note_idle(connection)
            connection.execute(delete(workers).where(workers.c.worker == worker_label()))
        return True


def forget_old(database: Database) -> None:
    """Removes the rows of workers whose heartbeat stopped a day ago or more without an end."""
    with database.transaction() as connection:
        connection.execute(delete(workers).where(workers.c.seen_at < NOW - FORGOTTEN))
