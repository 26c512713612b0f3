"""Caches arrays in a SQLite database in a node-local folder, which all processes on the node share.

It never takes more than its limit in bytes: the least recently used rows are removed first. A process may be killed at any moment; what
it had not committed is computed again, and so is a damaged row or file.
"""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.log import Log

DATABASE, LOCK = "outputs.sqlite", ".lock"
PAGE = 32768
"""Sets the bytes of a page. A few pooled features share one; activations of 200 kB take seven."""
ROOTS = 6
"""Counts the pages of an empty database."""
DISK_SHARE = 0.8
"""Sets the share of the limit that is filled ahead; the rest is for what a database takes beside its rows."""
PATIENCE = 30.0
"""Limits the seconds that it waits for another process's transaction."""
RECENT = 600.0
"""Sets the seconds in which several uses of a row count as one, so that reading rarely writes."""
TRANSACTION = 32 * 2**20
"""Limits the bytes that are written in one transaction: the log, which holds them beside the database, grows no larger by itself."""
VARIABLES, EVICTED = 500, 8
"""Set how many keys a query has, and how many rows are removed at once."""
ATTEMPTS = 5
"""Limits the attempts to write rows while other processes' reading keeps the log from being emptied."""
SETUP = (
    f"PRAGMA page_size = {PAGE}",
    "PRAGMA auto_vacuum = INCREMENTAL",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = OFF",  # a power failure may damage the file, which is then computed again
    "PRAGMA wal_autocheckpoint = 1",
    # a use changes only the small row: SQLite rewrites a whole row when it changes
    "CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL, checksum INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS outputs (id INTEGER PRIMARY KEY, value BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS by_use ON entries (used, id)",
)

log = Log("classifier")


@dataclass(frozen=True)
class FeatureCache:
    """Holds rows of bytes by key. Another process may remove one at any time, so a reader must be able to compute it again."""

    folder: Path
    limit: float
    """Limits the bytes that the database and its log take."""

    def read(self, keys: Sequence[bytes], out: NDArray[np.generic]) -> NDArray[np.bool_]:
        """Fills the rows of `out`, C-contiguous `[n, …]`, whose keys are cached, and returns which they are, `[n]`."""
        found = np.zeros(len(keys), np.bool_)
        if len(keys) == 0 or not self._path.exists():
            return found
        rows = out.reshape(len(keys), -1).view(np.uint8)
        places: dict[bytes, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        wanted, now = list(places), _now()
        used: list[int] = []
        damaged: list[int] = []
        try:
            with self._open() as database:
                query = "SELECT id, key, used, checksum, value FROM entries JOIN outputs USING (id)"
                for number, key, last, checksum, value in _selected(database, query, wanted):
                    if len(value) != rows.shape[1] or checksum != _checksum(key, value):
                        damaged.append(number)
                        continue
                    for place in places[key]:
                        rows[place] = np.frombuffer(value, np.uint8)
                        found[place] = True
                    if last < now:
                        used.append(number)
                with contextlib.suppress(sqlite3.OperationalError):  # another process writes; the next use will count
                    _mark_used(database, used, now)
                    _remove(database, damaged)
        except (OSError, sqlite3.Error) as error:
            self._warn_unread(error)
        return found

    def holds(self, keys: Sequence[bytes]) -> NDArray[np.bool_]:
        """Returns which keys are cached, `[n]`, without reading their rows; none if the database cannot be read."""
        present: set[bytes] = set()
        if self._path.exists():
            try:
                with self._open() as database:
                    present.update(key for (key,) in _selected(database, "SELECT key FROM entries", keys))
            except (OSError, sqlite3.Error) as error:
                self._warn_unread(error)
        return np.array([key in present for key in keys], np.bool_)

    def write(self, keys: Sequence[bytes], values: NDArray[np.generic]) -> None:
        """Adds the rows of `values`, `[n, …]`, and first removes old ones; does nothing if they cannot fit or the disk is full."""
        if len(keys) == 0:
            return
        rows = np.ascontiguousarray(values).reshape(len(keys), -1).view(np.uint8)
        n = max(1, int(min(TRANSACTION, self.limit / 16) // rows.shape[1]))
        try:
            with self._open() as database:
                for start in range(0, len(keys), n):
                    self._add(database, keys[start : start + n], rows[start : start + n])
        except (OSError, sqlite3.Error) as error:
            log.warning("computed outputs cannot be cached", path=self._path, reason=str(error))

    def _warn_unread(self, error: Exception) -> None:
        log.warning("cached outputs cannot be read and are computed again", path=self._path, reason=str(error))

    @property
    def _path(self) -> Path:
        return self.folder / DATABASE

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Opens the database, or creates it if there is none, and discards it if it turns out to be damaged."""
        self.folder.mkdir(parents=True, exist_ok=True)
        inode = None
        with contextlib.ExitStack() as stack:
            try:
                with self._lock():
                    if not self._path.exists():
                        self._remove_blocks()
                    # isolation_level None: transactions begin where they are written
                    database = sqlite3.connect(self._path, timeout=PATIENCE, isolation_level=None)
                    stack.callback(database.close)
                    inode = self._inode()
                    for statement in SETUP:
                        database.execute(statement)
                yield database
            except sqlite3.OperationalError:  # busy, full or not writable
                raise
            except sqlite3.DatabaseError:
                self._discard(inode)
                raise

    def _remove_blocks(self) -> None:
        """Removes what earlier versions cached, a file per block of images, which nothing reads and no limit bounds any more."""
        for file in self.folder.glob("[0-9a-f][0-9a-f]/*.npy"):
            file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Holds a lock between processes; the kernel releases it if its holder dies."""
        with (self.folder / LOCK).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _inode(self) -> int | None:
        return self._path.stat().st_ino if self._path.exists() else None

    def _discard(self, inode: int | None) -> None:
        """Removes a damaged database, unless another process has done so and begun a new one."""
        with self._lock():
            if self._inode() == inode:
                # the log first: the log of an old database must not meet a new database
                for suffix in ("-wal", "-shm", ""):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def _add(self, database: sqlite3.Connection, keys: Sequence[bytes], rows: NDArray[np.uint8]) -> None:
        size = int(rows.nbytes * 1.25) + 4 * PAGE  # small rows do not fill a page
        # room beside the database: for the log as it is, and for what this transaction adds to it and removes
        limit = self.limit - 4 * size
        if limit < ROOTS * PAGE:
            return
        for _ in range(ATTEMPTS):
            with _transaction(database):
                if emptied := self._logged() <= size:
                    _make_room(database, limit - size)
                    _insert(database, keys, rows)
            if emptied:
                break
            # another process was reading when the log should have been emptied
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        else:
            log.warning("computed outputs are not cached, as other processes read all the time", outputs=len(keys))
        if _number(database, "page_count") * PAGE > limit:  # the limit was higher before
            database.execute("PRAGMA incremental_vacuum").fetchall()

    def _logged(self) -> int:
        log_file = Path(f"{self._path}-wal")
        return log_file.stat().st_size if log_file.exists() else 0


def _selected(database: sqlite3.Connection, query: str, keys: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
    """Yields the rows of a query that have one of the keys."""
    for start in range(0, len(keys), VARIABLES):
        part = keys[start : start + VARIABLES]
        yield from database.execute(f"{query} WHERE key IN ({','.join('?' * len(part))})", part)


def _insert(database: sqlite3.Connection, keys: Sequence[bytes], rows: NDArray[np.uint8]) -> None:
    now = _now()
    for key, row in zip(keys, rows, strict=True):
        value = row.tobytes()
        entry = (key, now, _checksum(key, value))
        added = database.execute("INSERT OR IGNORE INTO entries (key, used, checksum) VALUES (?, ?, ?)", entry)
        if added.rowcount:
            database.execute("INSERT INTO outputs VALUES (?, ?)", (added.lastrowid, value))


def _make_room(database: sqlite3.Connection, limit: float) -> None:
    """Removes the least recently used rows until the others take at most `limit` bytes."""
    while (_number(database, "page_count") - _number(database, "freelist_count")) * PAGE > limit:
        oldest = database.execute(f"SELECT id FROM entries ORDER BY used, id LIMIT {EVICTED}").fetchall()
        if not oldest:
            return
        _delete(database, [number for (number,) in oldest])


def _now() -> int:
    return int(time.time() // RECENT)


def _number(database: sqlite3.Connection, pragma: str) -> int:
    return int(database.execute(f"PRAGMA {pragma}").fetchone()[0])


def _checksum(key: bytes, value: bytes) -> int:
    """Returns the sum of the words of a row and of its key, which differs if a page of the row is lost or belongs to another row."""
    width = next(width for width in (8, 4, 2, 1) if len(value) % width == 0)
    words = int(np.frombuffer(value, f"u{width}").sum(dtype=np.uint64))
    return (words + int.from_bytes(key[:8], "little")) % 2**63


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # the first error is the one to report
            database.execute("ROLLBACK")
        raise


def _mark_used(database: sqlite3.Connection, numbers: Sequence[int], now: int) -> None:
    if numbers:
        with _transaction(database):
            database.executemany("UPDATE entries SET used = ? WHERE id = ?", [(now, number) for number in numbers])


def _remove(database: sqlite3.Connection, numbers: Sequence[int]) -> None:
    if numbers:
        with _transaction(database):
            _delete(database, numbers)


def _delete(database: sqlite3.Connection, numbers: Sequence[int]) -> None:
    for table in ("entries", "outputs"):
        database.executemany(f"DELETE FROM {table} WHERE id = ?", [(number,) for number in numbers])
