"""Gives each process one pooled connection to PostgreSQL, which Optuna's storage and our own tables share, with bounded retries.

Optuna writes nothing for a lease without `Database.guarded`: the guard's statement is the first in the same transaction in which Optuna
writes, so that the check and the write are atomic. (A lock on a second connection would be lost with that connection.)

Nothing here has to outlive a transaction on the server: there are no session-level locks, no LISTEN and no prepared statements, so PgBouncer in
transaction mode suffices. The one setting of a session, which frees the locks of silent clients, is PgBouncer's own to make there (docs/searches.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import optuna
import psycopg2
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import DBAPIError, PendingRollbackError, SQLAlchemyError

from shared.errors import ConfigError, UnavailableError
from shared.log import Log
from shared.retries import Backoff, retrying
from shared.search import schema, statements
from shared.search.connect import CONNECT, REFUSED, is_refusal, refusal
from shared.search.database_url import connection_arguments
from shared.search.tables import schema_version

RETRY = Backoff(0.2, longest=5.0)
LOCK_RETRY = Backoff(0.1, longest=1.0)
T = TypeVar("T")
Guard = Callable[[sqlalchemy.Connection], None]

QUIET_SECONDS = 15.0  # how long a server that was never reached may take to start before a log line says so
PATIENCE_SECONDS = 120.0  # how long an unavailable database is tried again, before exit 75

_log = Log("search")


class _OthersCreateError(Exception):
    """Says that another process creates the tables now."""


class Database:
    """Gives access to a PostgreSQL database: to Optuna's storage (`storage`), and to our own tables (`transaction`).

    `url` is what `shared.search.database_url` reads; no message repeats its password, and no attribute that is printed holds it.
    """

    def __init__(self, url: str, patience: float = PATIENCE_SECONDS, connections: int = 1) -> None:
        """Opens no connection yet; raises ConfigError if `url` is not one of PostgreSQL."""
        arguments, self.label = connection_arguments(url)
        self._arguments: dict[str, Any] = {**CONNECT, **arguments}
        self._patience = patience
        self._connections = connections
        self._guards = threading.local()
        self._engine = sqlalchemy.create_engine("postgresql+psycopg2://", **self._engine_arguments())
        self._storage: RDBStorage | None = None
        self._has_tables = False
        self._reached = self._said_unavailable = False
        self._back_at = -float("inf")  # time.monotonic() of the latest success after a failure; inf during a failure

    @property
    def storage(self) -> RDBStorage:
        """Returns Optuna's storage; its tables must exist (see `create_tables` and `has_tables`: ours are created last)."""
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
        """Returns whether the database was unavailable within the last `seconds`."""
        return time.monotonic() - self._back_at < seconds

    @contextmanager
    def transaction(self) -> Iterator[sqlalchemy.Connection]:
        """Runs the block in a transaction, which is committed at its end and rolled back by an exception."""
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def guarded(self, guard: Guard) -> Iterator[None]:
        """Runs `guard` at the start of every transaction that Optuna begins in the block on this thread; `guard` raises to forbid the transaction."""
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
        """Returns the result of `operation`, which is repeated while the database is unavailable, so that running it twice must do no harm.

        `what` says in messages what the operation does. `check` runs before each new try and may raise (a lost lease, a signal). Raises
        UnavailableError after `patience` seconds, and ConfigError if the server refuses for good.
        """
        limit = self._patience if patience is None else patience
        again = retrying(
            self._is_unavailable,
            RETRY,
            partial(self._failed, what),
            patience=limit,
            check=check,
        )
        try:
            result = again(operation)
        except (SQLAlchemyError, StorageInternalError) as error:
            cause = _database_error(error)
            if cause is None:
                raise
            raise UnavailableError(
                f"PostgreSQL at {self.label}: {what} failed for {limit:.0f} s ({self._reason(cause)}); see that it runs and run the same command again"
            ) from error
        self._reached = True
        if self._back_at == float("inf"):
            self._back_at = time.monotonic()
            if self._said_unavailable:
                _log.info("database available again", server=self.label)
            self._said_unavailable = False
        return result

    def _is_unavailable(self, error: BaseException) -> bool:
        """Returns whether an error says that the database is unavailable; raises ConfigError if it says that the server refuses for good."""
        cause = _database_error(error) if isinstance(error, SQLAlchemyError | StorageInternalError) else None
        if cause is None:
            return False
        self._reason(cause)
        return True

    def _failed(self, what: str, attempt: int, seconds: float, error: BaseException | None, waited: float) -> None:
        """Notes a failed attempt, and says so once the server has been reached or has had time to start."""
        self._back_at = float("inf")
        if self._reached or waited >= QUIET_SECONDS:
            cause = _database_error(error)
            assert cause is not None
            self._said_unavailable = True
            _log.warning(
                "database unavailable",
                server=self.label,
                doing=what,
                error=self._reason(cause),
                again_in_seconds=seconds,
            )

    def create_tables(self) -> None:
        """Creates Optuna's tables and ours if they are missing, and migrates ours if they are older; any number of processes may do it at once.

        Raises ConfigError if another Optuna version or a newer tailfill created the tables.
        """

        def create() -> None:
            with self.transaction() as connection:
                if not connection.scalar(text(statements.TRY_LOCK_TABLES)):
                    raise _OthersCreateError
                made, written = _stored_version(connection)
                version = schema.version_of(made, written)
                current = schema.check_version(version, self.label)
                self._create_optunas_tables()
                for migration in schema.MIGRATIONS[version:]:
                    connection.execute(text(migration))
                if written is None:
                    connection.execute(text(schema.WRITE_DOWN))
                if written is None or not current:
                    connection.execute(update(schema_version).values(version=len(schema.MIGRATIONS)))

        again = retrying(_OthersCreateError, LOCK_RETRY, self._wait_for_tables, patience=PATIENCE_SECONDS)
        try:
            again(self.call, "creating tables", create)
        except _OthersCreateError:
            raise UnavailableError(
                f"PostgreSQL at {self.label}: another process has been creating the search tables for {PATIENCE_SECONDS:.0f} s; "
                "see what it waits for, and run the same command again"
            ) from None

    def _wait_for_tables(self, attempt: int, seconds: float, error: BaseException | None, waited: float) -> None:
        """Says that another process creates the tables, once that takes long."""
        if waited >= QUIET_SECONDS:
            _log.info("another process creates the search tables", server=self.label, again_in_seconds=seconds)

    def _create_optunas_tables(self) -> None:
        # Optuna's constructor takes a second connection, and commits on its own
        arguments = {**self._engine_arguments(), "pool_size": 1, "max_overflow": 1}
        try:
            made = RDBStorage("postgresql+psycopg2://", engine_kwargs=arguments)
        except RuntimeError as error:
            raise ConfigError(f"PostgreSQL at {self.label}: {error}") from error
        made.remove_session()
        made.engine.dispose()

    def has_tables(self) -> bool:
        """Returns whether a coordinator has created the tables in the present version; raises ConfigError if they are newer."""
        if not self._has_tables:
            with self.transaction() as connection:
                version = schema.version_of(*_stored_version(connection))
            self._has_tables = schema.check_version(version, self.label)
        return self._has_tables

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
            "pool_timeout": 5,  # a thread is not woken if the connection that it waits for fails in another thread
        }

    def _connect(self) -> Any:
        connection = psycopg2.connect(**self._arguments)
        with connection.cursor() as cursor:  # not as a start-up option: PgBouncer refuses those
            cursor.execute(statements.LIMIT_IDLE_TRANSACTIONS)
        connection.commit()
        return connection

    def _reason(self, error: Exception) -> str:
        reason = " ".join(str(error).split()) or type(error).__name__
        if is_refusal(error):
            raise ConfigError(refusal(self.label, reason, getattr(error, "pgcode", None))) from None
        return reason[:200]


def _stored_version(connection: sqlalchemy.Connection) -> tuple[bool, int | None]:
    """Returns whether our tables exist, and the version that is recorded, None if there is none."""
    made, versioned = connection.execute(text(statements.TABLES)).one()
    return made, connection.scalar(select(schema_version.c.version)) if versioned else None


def quiet_optuna() -> None:
    """Sends Optuna's warnings to our own log, and discards its progress messages."""
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _database_error(error: BaseException | None) -> Exception | None:
    """Returns the error that says that the database was unavailable, busy or full, or refuses us; None for any other error.

    Optuna wraps the driver's errors, and a retry of its own may end in an error of SQLAlchemy's about the first attempt, so the
    whole chain counts.
    """
    while error is not None:
        if isinstance(error, DBAPIError):
            cause = error.orig if isinstance(error.orig, Exception) else error
            unavailable = isinstance(cause, psycopg2.OperationalError | psycopg2.InterfaceError)
            if error.connection_invalidated or unavailable or getattr(cause, "pgcode", None) in REFUSED:
                return cause
        elif isinstance(error, sqlalchemy.exc.TimeoutError | PendingRollbackError):
            return error
        error = error.__cause__ or error.__context__
    return None
