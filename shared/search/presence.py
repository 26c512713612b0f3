"""Says that a worker lives, also while it holds no trial: a row in `tailfill_workers`, renewed beside its work.

So is one in `tailfill_idle`, which stays: for how long it has had a GPU and no trial.
"""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable

from sqlalchemy import Connection, text

from shared.errors import TailfillError
from shared.log import Log
from shared.search.storage import Database

SEEN_SECONDS = 15.0  # between two signs of life
_log = Log("tune")


def worker_label() -> str:
    """Host and process, for people; in leases and signs of life alike."""
    return f"{socket.gethostname()}/{os.getpid()}"


class Presence:
    """Signs of life of this process for as long as the block runs; uses the worker's own connection.

    They are for onlookers only: one that fails is logged and not missed, as trials go by leases.
    """

    def __init__(self, database: Database, search: str, device: str, idle_seconds: Callable[[], float]) -> None:
        """`idle_seconds` says for how long the process has been without a trial, all in all."""
        self._database, self._search, self._device = database, search, device
        self._idle_seconds, self._process = idle_seconds, uuid.uuid4()
        self._over = threading.Event()
        self._seen = False
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._seen:
            self._try("signing off", self._leave)

    def _run(self) -> None:
        while True:
            self._seen = self._try("giving a sign of life", self._note)
            if self._over.wait(SEEN_SECONDS):
                return

    def _try(self, what: str, write: Callable[[], bool]) -> bool:
        try:
            return self._database.call(what, write, patience=0)
        except TailfillError as error:
            _log.warning("no sign of life given", reason=str(error))
            return False

    def _note(self) -> bool:
        if not self._database.has_tables():
            return False
        with self._database.transaction() as connection:
            connection.execute(
                text(
                    """INSERT INTO tailfill_workers (worker, search, device, seen_at)
                       VALUES (:worker, :search, :device, clock_timestamp())
                       ON CONFLICT (worker) DO UPDATE SET search = :search, device = :device, seen_at = clock_timestamp()"""
                ),
                {"worker": worker_label(), "search": self._search, "device": self._device},
            )
            self._note_idle(connection)
        return True

    def _note_idle(self, connection: Connection) -> None:
        if self._device != "cpu":
            connection.execute(
                text(
                    """INSERT INTO tailfill_idle (process, search, gpu_seconds) VALUES (:process, :search, :seconds)
                       ON CONFLICT (process) DO UPDATE SET gpu_seconds = greatest(tailfill_idle.gpu_seconds, :seconds)"""
                ),
                {"process": str(self._process), "search": self._search, "seconds": self._idle_seconds()},
            )

    def _leave(self) -> bool:
        with self._database.transaction() as connection:
            self._note_idle(connection)
            connection.execute(text("DELETE FROM tailfill_workers WHERE worker = :worker"), {"worker": worker_label()})
        return True


def forget_old(database: Database) -> None:
    """Removes the rows of workers that went without a word a day ago or more."""
    with database.transaction() as connection:
        connection.execute(text("DELETE FROM tailfill_workers WHERE seen_at < clock_timestamp() - interval '1 day'"))
