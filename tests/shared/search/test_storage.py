"""Tests the connections: bounded retries, clear refusals, one connection per process, and tables that many processes create at once."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy import make_url, text

from shared.errors import ConfigError, UnavailableError
from shared.search import storage
from shared.search.storage import Database
from tests.support.search.own_server import OwnServer


def test_wrong_password_is_refused_for_good_and_not_repeated(postgres_url: str) -> None:
    password = postgres_url.split(":")[2].split("@")[0]
    database = Database(postgres_url.replace(password, "not-the-one"))
    with pytest.raises(ConfigError, match="password authentication failed") as caught:
        database.call("asking", database.has_tables)
    assert "not-the-one" not in str(caught.value)
    assert "not-the-one" not in repr(database.__dict__["label"])


def test_missing_database_is_refused_for_good(postgres_url: str) -> None:
    database = Database(f"{postgres_url.rsplit('/', 1)[0]}/absent")
    with pytest.raises(ConfigError, match='"absent" does not exist'):
        database.call("asking", database.has_tables)


def test_missing_rights_are_refused_for_good(database_url: str) -> None:
    """The code of the error decides, whatever the message and its language."""
    database = Database(database_url)
    database.create_tables()
    with database.transaction() as connection:  # an owner can revoke its own right
        connection.execute(text("REVOKE ALL ON tailfill_searches FROM CURRENT_USER"))
    with pytest.raises(ConfigError, match=r"refuses us .*permission denied for table tailfill_searches") as caught:
        database.call("reading", lambda: _rows(database))
    database.close()
    assert str(make_url(database_url).password) not in str(caught.value)


def _rows(database: Database) -> int:
    with database.transaction() as connection:
        return int(connection.execute(text("SELECT count(*) FROM tailfill_searches")).scalar_one())


@pytest.mark.parametrize("url", ["mysql://a:secret@b/c", "secret", "postgresql://u:secret@h:port/d"])
def test_other_urls_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ConfigError, match="must be postgresql://") as caught:
        Database(url)
    assert "secret" not in str(caught.value)


def test_away_ends_with_unavailable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        database = Database(f"postgresql://u:secret@127.0.0.1:{unused.getsockname()[1]}/d", patience=0.5)
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="asking failed for 0 s") as caught:
            database.call("asking", database.has_tables)
    assert time.monotonic() - started < 5
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("quiet", [15.0, 0.0])
def test_waits_for_a_server_that_comes_later(
    postgres_url: str, quiet: float, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is starting is not logged; one that takes long, or was available before, is."""
    monkeypatch.setattr(storage, "QUIET_SECONDS", quiet)
    caplog.set_level("INFO", "tailfill")
    with socket.socket() as first:
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
    host, real = "127.0.0.1", int(postgres_url.rsplit(":", 1)[1].split("/")[0])
    database = Database(postgres_url.replace(f":{real}/", f":{port}/"), patience=20)
    forward = threading.Timer(0.5, _forward, (host, port, real))
    forward.start()
    database.call("asking", database.has_tables)
    assert database.back_within(5)
    said = [record.message for record in caplog.records]
    assert (said[:1], said[-1:]) == (
        (["database unavailable"], ["database available again"]) if quiet == 0 else ([], [])
    )
    database.close()
    forward.join()
    with pytest.raises(UnavailableError):
        database.call("asking", lambda: database.transaction().__enter__(), patience=0.1)
    assert caplog.records[-1].message == "database unavailable"


def _forward(host: str, port: int, real: int) -> None:
    """Forwards one connection to the real server until it ends."""
    with socket.create_server((host, port)) as server:
        client, _ = server.accept()
        with client, socket.create_connection((host, real)) as upstream:
            back = threading.Thread(target=_copy, args=(upstream, client))
            back.start()
            _copy(client, upstream)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


def test_check_ends_the_waiting() -> None:
    database = Database("postgresql://u:p@127.0.0.1:1/d")

    def stop() -> None:
        raise KeyError("stopped")

    with pytest.raises(KeyError):
        database.call("asking", database.has_tables, check=stop)


def test_dropped_connection_is_replaced(database: Database, postgres_url: str) -> None:
    other = Database(postgres_url)
    with database.transaction() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    with other.transaction() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    optuna.create_study(storage=database.storage)
    other.close()


def test_other_errors_are_not_retried(database: Database) -> None:
    def wrong() -> None:
        with database.transaction() as connection:
            connection.execute(text("SELECT * FROM nowhere"))

    with pytest.raises(Exception, match="nowhere"):
        database.call("asking", wrong)


def test_guard_and_write_are_undone_together(database: Database) -> None:
    study = optuna.create_study(storage=database.storage)

    def forbid(_: object) -> None:
        raise PermissionError

    with pytest.raises(PermissionError), database.guarded(forbid):
        study.enqueue_trial({})
    assert study.trials == []
    study.enqueue_trial({})
    assert len(study.trials) == 1


def test_one_connection_serves_threads_one_after_the_other(database: Database) -> None:
    study = optuna.create_study(storage=database.storage)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: study.enqueue_trial({}), range(12)))
    assert len(study.trials) == 12
    assert database.storage.engine.pool.size() == 1  # type: ignore[attr-defined]


def test_tables_are_made_by_many_at_once(database_url: str) -> None:
    databases = [Database(database_url, patience=60) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda d: d.create_tables(), databases))
    studies = []
    with ThreadPoolExecutor(8) as pool:
        studies = list(
            pool.map(lambda d: optuna.create_study(storage=d.storage, study_name="one", load_if_exists=True), databases)
        )
    assert len({study._study_id for study in studies}) == 1
    for database in databases:
        database.close()


def test_storage_without_tables_is_an_error_not_a_hang(database_url: str) -> None:
    database = Database(database_url)
    assert not database.has_tables()
    with pytest.raises(StorageInternalError):
        _ = database.storage
    database.close()


def test_whoever_waits_for_a_connection_that_fails_tries_itself(tmp_path: Path) -> None:
    """Heartbeat and work start at once, and neither keeps waiting if the other could not connect."""
    server = OwnServer(tmp_path / "postgres")
    server.stop()
    database = Database(server.url, patience=60)
    try:
        with ThreadPoolExecutor(2) as pool:
            with socket.create_server(("127.0.0.1", urlsplit(server.url).port)) as nobody:
                first = pool.submit(lambda: database.call("looking", database.has_tables, patience=0))
                client, _ = nobody.accept()  # one connects, and has no answer yet
                second = pool.submit(lambda: database.call("asking", database.has_tables))
                time.sleep(0.5)
                client.close()
            assert first.exception(20) is not None
            server.start()
            assert second.result(20) is False
    finally:
        database.close()
        server.stop()
