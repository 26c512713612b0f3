"""PostgreSQL: one pooled connection a process, shared by Optuna's storage and our own tables, with bounded retries.

Optuna writes nothing on behalf of a lease without `Database.guarded`: the guard's statement runs as the first of the very transaction
in which Optuna writes, so that the check and the write are one. (A lock held on a second connection would be lost with it.)

Nothing here outlives a transaction on the server: no session-level locks, no LISTEN, so PgBouncer in transaction mode will do.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import optuna
import psycopg2
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError

from shared.errors import ConfigError, UnavailableError
from shared.log import Log
from shared.search.connect import CONNECT, refusal, refused

T = TypeVar("T")
Guard = Callable[[sqlalchemy.Connection], None]

QUIET_SECONDS = 15.0  # how long a server that was never reached yet may take to start before a line says so
PATIENCE_SECONDS = 120.0  # how long a database that is away is asked again, before exit 75
IDLE_IN_TRANSACTION_MS = 20_000  # the server ends a transaction whose client fell silent, so that its row locks go
CREATION_LOCK = 0x7461696C  # "tail": one process at a time creates tables and studies

_log = Log("search")


class Database:
    """A PostgreSQL database as Optuna's storage (`storage`) and by SQL (`transaction`).

    `url` is `postgresql://user:password@host:port/database`; its password is in no message and in no attribute that is printed.
    """

    def __init__(self, url: str, patience: float = PATIENCE_SECONDS, connections: int = 1) -> None:
        """Opens no connection yet; raises ConfigError where `url` is none of PostgreSQL."""
        self._arguments, self.label = _connection_arguments(url)
        self._patience = patience
        self._connections = connections
        self._guards = threading.local()
        self._engine = sqlalchemy.create_engine("postgresql+psycopg2://", **self._engine_arguments())
        self._storage: RDBStorage | None = None
        self._tables_seen = False
        self._reached = self._said_away = False
        self._back_at = -float("inf")  # time.monotonic() of the latest success after a failure; inf during one

    @property
    def storage(self) -> RDBStorage:
        """Optuna's storage; its tables exist (`create_tables`, or a look at ours, which are made last)."""
        if self._storage is None:
            storage = RDBStorage(
                "postgresql+psycopg2://",
                engine_kwargs={"pool": self._engine.pool},
                skip_compatibility_check=True,
                skip_table_creation=True,
            )
            event.listen(storage.scoped_session, "after_begin", self._check_guard)
            self._storage = storage
        return self._storage

    def back_within(self, seconds: float) -> bool:
        """Whether the database was away within the last so many seconds."""
        return time.monotonic() - self._back_at < seconds

    @contextmanager
    def transaction(self) -> Iterator[sqlalchemy.Connection]:
        """A transaction on our own tables; committed at the end, rolled back by an exception."""
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def guarded(self, guard: Guard) -> Iterator[None]:
        """Within it, every transaction that Optuna begins on this thread begins with `guard`, which raises to forbid it."""
        assert getattr(self._guards, "current", None) is None, "guards do not nest"
        self._guards.current = guard
        try:
            yield
        finally:
            self._guards.current = None

    def _check_guard(self, _session: Any, _transaction: Any, connection: sqlalchemy.Connection) -> None:
        guard: Guard | None = getattr(self._guards, "current", None)
        if guard is not None:
            guard(connection)

    def call(
        self,
        what: str,
        operation: Callable[[], T],
        patience: float | None = None,
        check: Callable[[], None] | None = None,
    ) -> T:
        """The operation's result, tried again while the database is away; `operation` must bear being run twice.

        `check` runs before each new try and may raise (a lost lease, a signal). Raises UnavailableError when patience ends, ConfigError
        where the server refuses for good.
        """
        patience = self._patience if patience is None else patience
        began = time.monotonic()
        deadline = began + patience
        pause = 0.2
        while True:
            try:
                result = operation()
            except (SQLAlchemyError, StorageInternalError) as error:
                cause = _database_error(error)
                if cause is None:
                    raise
                reason = self._reason(cause)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise UnavailableError(
                        f"PostgreSQL at {self.label}: {what} failed for {patience:.0f} s ({reason}); see that it runs and run the same command again"
                    ) from error
                self._back_at = float("inf")
                wait = min(left, pause * random.uniform(0.5, 1.5))
                if self._reached or time.monotonic() - began >= QUIET_SECONDS:
                    self._said_away = True
                    _log.warning(
                        "database away", server=self.label, doing=what, error=reason, again_in_seconds=round(wait, 1)
                    )
                _sleep(wait, check)
                pause = min(pause * 2, 5.0)
            else:
                self._reached = True
                if self._back_at == float("inf"):
                    self._back_at = time.monotonic()
                    if self._said_away:
                        _log.info("database back", server=self.label)
                    self._said_away = False
                return result

    def create_tables(self) -> None:
        """Makes Optuna's tables and ours where they are missing; any number of processes may do it at once.

        Raises ConfigError where another Optuna version made the tables.
        """
        from shared.search.tables import TABLES

        def create() -> None:
            with self.transaction() as connection:
                connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": CREATION_LOCK})
                # Optuna's constructor takes a second connection, and commits on its own
                arguments = {**self._engine_arguments(), "pool_size": 1, "max_overflow": 1}
                try:
                    made = RDBStorage("postgresql+psycopg2://", engine_kwargs=arguments)
                except RuntimeError as error:
                    raise ConfigError(f"PostgreSQL at {self.label}: {error}") from error
                made.remove_session()
                made.engine.dispose()
                connection.execute(sqlalchemy.text(TABLES))

        self.call("creating tables", create)

    def has_tables(self) -> bool:
        """Whether the coordinator has made the tables (ours are made last)."""
        if not self._tables_seen:
            with self.transaction() as connection:
                table = connection.scalar(sqlalchemy.text("SELECT to_regclass('tailfill_idle')"))
            self._tables_seen = table is not None
        return self._tables_seen

    def close(self) -> None:
        """Closes the connections."""
        if self._storage is not None:
            self._storage.remove_session()
        self._engine.dispose()

    def _engine_arguments(self) -> dict[str, Any]:
        return {
            "creator": self._connect,
            "pool_size": self._connections,
            "max_overflow": 0,
            "pool_pre_ping": True,
            "pool_timeout": 5,  # who waits for a connection that another thread fails to make is not woken
        }

    def _connect(self) -> Any:
        connection = psycopg2.connect(**self._arguments)
        with connection.cursor() as cursor:  # not as a start-up option: PgBouncer refuses those
            cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS}")
        connection.commit()
        return connection

    def _reason(self, error: Exception) -> str:
        text = " ".join(str(error).split()) or type(error).__name__
        if refused(text):
            raise ConfigError(refusal(self.label, text)) from None
        return text[:200]


def quiet_optuna() -> None:
    """Sends Optuna's warnings the way of our own logs, and its progress nowhere."""
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _connection_arguments(url: str) -> tuple[dict[str, Any], str]:
    try:
        parsed = sqlalchemy.make_url(url.replace("postgres://", "postgresql://", 1))
    except (SQLAlchemyError, ValueError):
        parsed = None  # its message would repeat the password
    if parsed is None or parsed.get_backend_name() != "postgresql" or not parsed.host:
        raise ConfigError("DATABASE_URL: must be postgresql://user:password@host:port/database; got something else")
    arguments = {**CONNECT, **parsed.query, **parsed.translate_connect_args(username="user", database="dbname")}
    return arguments, f"{parsed.host}:{parsed.port or 5432}/{parsed.database}"


def _database_error(error: BaseException | None) -> Exception | None:
    """The error that says that the database was away, busy or full, so that another try may succeed; else None.

    Optuna wraps the driver's errors, and one of its second tries ends in SQLAlchemy's complaint about the first: so the whole chain counts.
    """
    while error is not None:
        if isinstance(error, DBAPIError):
            lost = error.connection_invalidated
            if lost or isinstance(error.orig, psycopg2.OperationalError | psycopg2.InterfaceError):
                return error.orig if isinstance(error.orig, Exception) else error
        elif isinstance(error, sqlalchemy.exc.TimeoutError | PendingRollbackError):
            return error
        error = error.__cause__ or error.__context__
    return None


def _sleep(seconds: float, check: Callable[[], None] | None) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if check is not None:
            check()
        time.sleep(min(left, 0.2))
    if check is not None:
        check()
