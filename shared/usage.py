"""What the processes of a stage spend on a result before it is committed: a killed one's hours are counted too.

Each process keeps a record in the store, `<study>/<stage>/<key>/spent/<process>.json`: when it begins, every half minute, and when it
ends, however it does. The commit adds the records up and removes them; those of work that is not committed count as they stand. What a
process does between its last record and a SIGKILL, half a minute at most, is counted nowhere.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.store import NotFound, Store
from shared.config.base import Section
from shared.config.stages import Stage
from shared.errors import TailfillError
from shared.log import Log

RECORD_SECONDS = 30.0  # between two records of a process
END_SECONDS = 5.0  # that the end of the work waits for a record on its way
FOLDER = "spent"  # beside checkpoints and parts

log = Log("meter")


class Record(Section):
    """One process's work on a result."""

    gpus: int
    """How many it holds; 0 on a CPU."""
    seconds: float
    """Of wall time so far."""
    kept: float
    """Of these, those up to its last checkpoint or part: what another process goes on from. The others are lost if it ends now."""

    @property
    def gpu_seconds(self) -> float:
        """For which GPUs were held, counted for each."""
        return self.gpus * self.seconds


class Meter:
    """Measures one process's work. A context manager, in which the process's record is kept in the store beside the work.

    A record that cannot be written is logged, once, and not missed otherwise: no work ends for its accounting.
    """

    def __init__(self, artifacts: Artifacts, stage: Stage, key: str, gpus: int, started: float) -> None:
        """`started` is when the work began, by the monotonic clock."""
        self._store, self._folder = artifacts.store, f"{artifacts.study}/{stage}/{key}"
        self._own = f"{self._folder}/{FOLDER}/{uuid.uuid4().hex}.json"
        self._gpus, self._started, self._kept = gpus, started, 0.0
        self._over, self._warned = False, False
        self._away = False
        """Whether the last record could not be written."""
        self._due = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def seconds(self) -> float:
        """Wall seconds since the work began."""
        return time.monotonic() - self._started

    def keep(self, seconds: float) -> None:
        """The store holds the work of the first `seconds`; recorded at once, for whoever commits a result of several processes."""
        self._kept = max(self._kept, seconds)
        self._due.set()

    def settle(self) -> list[Record]:
        """The other processes' records, to be committed; this one's is not written any more beside that."""
        self._stop()
        locations = self._store.list(f"{self._folder}/{FOLDER}/")
        return _read(self._store, [location for location in locations if location != self._own])

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is KeyboardInterrupt:
            return  # a second signal: nothing is waited for
        self._stop()
        if kind is None:
            self.keep(self.seconds())
        hopeless = self._thread.is_alive() or (self._away and kind is not None)
        if not hopeless:  # else a stage that ends because of a store that does not answer would wait for it once more
            self._try(self._leave)

    def _leave(self) -> None:
        if self._store.exists(f"{self._folder}/manifest.json"):
            self._store.delete(self._own)  # it is in there, or was too late
        else:
            self._write()

    def _stop(self) -> None:
        self._over = True
        self._due.set()
        if self._thread.is_alive():
            self._thread.join(END_SECONDS)

    def _run(self) -> None:
        while not self._over:
            self._try(self._write)
            self._due.wait(RECORD_SECONDS)
            self._due.clear()

    def _write(self) -> None:
        record = Record(gpus=self._gpus, seconds=self.seconds(), kept=self._kept)
        self._store.put(self._own, record.model_dump_json().encode())

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
            self._away = False
        except TailfillError as error:
            if not self._warned:
                log.warning("the time that this process spends is not recorded", reason=str(error))
            self._warned = self._away = True


def records_under_way(artifacts: Artifacts, stage: Stage) -> list[Record]:
    """Those of a stage's processes that work, or worked, on results that are not committed."""
    locations = list(artifacts.store.list(f"{artifacts.study}/{stage}/"))
    committed = {location.split("/")[2] for location in locations if location.endswith("/manifest.json")}
    records = [location for location in locations if location.split("/")[3] == FOLDER]
    return _read(artifacts.store, [record for record in records if record.split("/")[2] not in committed])


def _read(store: Store, locations: Iterable[str]) -> list[Record]:
    """Without those that a commit removes meanwhile, and those of a version whose records are others."""
    found = []
    for location in locations:
        try:
            found.append(Record.model_validate_json(store.get(location)))
        except NotFound:
            continue
        except ValueError as error:
            log.warning("a record of time spent is left out", record=location, reason=str(error).splitlines()[0])
    return found
