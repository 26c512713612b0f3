"""Measures the time that processes spend on a result before it is committed, including processes that were killed.

Each process writes a record to the store, `<study>/<stage>/<key>/spent/<process>.json`: when it begins, every half minute, and when it
ends for any reason. The commit adds the records up and removes them; those of uncommitted work are counted as they are. The time between
a process's last record and a SIGKILL, half a minute at most, is not counted.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.store import NotFound, Store
from shared.config.base import Section
from shared.config.stages import Stage
from shared.errors import TailfillError
from shared.log import Log

RECORD_SECONDS = 30.0  # between two records of a process
END_SECONDS = 5.0  # that the end of the work waits for a record that is being written
FOLDER = "spent"  # beside checkpoints and parts

log = Log("meter")


class Record(Section):
    """Holds one process's work on a result."""

    gpus: int
    """Counts the GPUs that the process holds; 0 on a CPU."""
    seconds: float
    """Counts the wall seconds so far."""
    kept: float
    """Counts the seconds up to its last checkpoint or part, from which another process continues. The seconds after it are lost if
    the process ends now."""

    @property
    def gpu_seconds(self) -> float:
        """Returns the number of GPU seconds: the wall seconds times the number of GPUs."""
        return self.gpus * self.seconds


@dataclass(frozen=True)
class ComputeUsage:
    """Holds the seconds of work on a result, summed over all processes that took part in it."""

    gpu: float = 0.0
    """Counts the GPU seconds."""
    cpu: float = 0.0
    """Counts the seconds of processes without a GPU."""
    gpu_lost: float = 0.0
    """Counts the GPU seconds whose work was lost with a process."""
    cpu_lost: float = 0.0
    """Counts the seconds without a GPU whose work was lost with a process."""

    @classmethod
    def of(cls, records: Sequence[Record]) -> ComputeUsage:
        """Returns the sum over the records of processes that have ended or are about to."""
        return cls(
            gpu=sum(r.gpu_seconds for r in records),
            cpu=sum(r.seconds for r in records if not r.gpus),
            gpu_lost=sum(r.gpus * (r.seconds - r.kept) for r in records),
            cpu_lost=sum(r.seconds - r.kept for r in records if not r.gpus),
        )


class Meter:
    """Measures one process's work. Used as a context manager, it writes the process's record to the store while the work runs.

    A record that cannot be written is logged once, and the work continues.
    """

    def __init__(
        self,
        artifacts: Artifacts,
        stage: Stage,
        key: str,
        gpus: int,
        started: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares a record for the result `key` of a stage, whose work began at `started` by the clock, on this many GPUs."""
        self._store, self._folder = artifacts.store, f"{artifacts.study}/{stage}/{key}"
        self._own = f"{self._folder}/{FOLDER}/{uuid.uuid4().hex}.json"
        self._gpus, self._started, self._kept, self._clock = gpus, started, 0.0, clock
        self._over, self._warned = False, False
        self._store_unavailable = False
        """Says whether the store was unavailable for the last record."""
        self._due = threading.Event()
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def seconds(self) -> float:
        """Returns the wall seconds since the work began."""
        return self._clock() - self._started

    def keep(self, seconds: float) -> None:
        """Records at once that the store holds the work of the first `seconds`, for whoever commits a result of several processes."""
        self._kept = max(self._kept, seconds)
        self._due.set()

    def settle(self) -> list[Record]:
        """Stops writing this process's record, and returns those of the other processes, to be committed."""
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
        unavailable = self._thread.is_alive() or (self._store_unavailable and kind is not None)
        if not unavailable:  # else a stage that ends because the store does not answer would wait for it once more
            self._try(self._finish)

    def _finish(self) -> None:
        if self._store.exists(f"{self._folder}/manifest.json"):
            self._store.delete(self._own)  # the manifest includes it, or was written before it
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
            self._store_unavailable = False
        except TailfillError as error:
            if not self._warned:
                log.warning("the time that this process spends is not recorded", reason=str(error))
            self._warned = self._store_unavailable = True


def records_under_way(artifacts: Artifacts, stage: Stage) -> list[Record]:
    """Returns the records of a stage's processes on results that are not committed."""
    locations = list(artifacts.store.list(f"{artifacts.study}/{stage}/"))
    committed = {location.split("/")[2] for location in locations if location.endswith("/manifest.json")}
    records = [location for location in locations if location.split("/")[3] == FOLDER]
    return _read(artifacts.store, [record for record in records if record.split("/")[2] not in committed])


def _read(store: Store, locations: Iterable[str]) -> list[Record]:
    """Returns the records that can be read: not those that a commit removes meanwhile, nor those that another version wrote."""
    found = []
    for location in locations:
        try:
            found.append(Record.model_validate_json(store.get(location)))
        except NotFound:
            continue
        except ValueError as error:
            log.warning("a record of time spent is left out", record=location, reason=str(error).splitlines()[0])
    return found
