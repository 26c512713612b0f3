"""Tests searches through PgBouncer in transaction mode, which lends a connection of the server for the length of a transaction only.

The program is Debian's package `pgbouncer`, which CI installs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest

from shared.search.connections import workers_limit
from shared.search.monitor import read_searches
from shared.search.simulate import simulate
from shared.search.storage import Database
from shared.services.process import free_ports, unprivileged_user
from tests.support.search.drill import Drill
from tests.support.search.fleet import Fleet, check_end

POOL = 4  # connections to the server, for all clients; far fewer than there are processes
PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no pgbouncer on PATH: it is Debian's package of that name"),
    pytest.mark.timeout(300),
]


@dataclass(frozen=True)
class Pooled:
    """Holds the URL of an empty database through PgBouncer, and the one of the server itself."""

    url: str
    direct: str

    def server_connections(self) -> int:
        """Returns how many connections PgBouncer has to the server."""
        connection = psycopg2.connect(self.direct)
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            (found,) = cursor.fetchone() or (0,)
        connection.close()
        return int(found) - 1


@pytest.fixture
def pooled(database_url: str) -> Iterator[Pooled]:
    server, (port,) = urlsplit(database_url), free_ports(1)
    assert PROGRAM is not None
    with (
        tempfile.TemporaryDirectory() as made
    ):  # PgBouncer refuses to run as root, and must reach its files as another user
        folder, user = Path(made), unprivileged_user()
        (folder / "users").write_text(f'"{server.username}" "{server.password}"\n')
        (folder / "pgbouncer.ini").write_text(
            f"""[databases]
* = host={server.hostname} port={server.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {POOL}
max_client_conn = 500
idle_transaction_timeout = 20
logfile = {folder}/log
"""
        )
        if user is not None:
            for path in (folder, *folder.iterdir()):
                os.chown(path, user.uid, user.gid)
        as_user = {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}
        process = subprocess.Popen([PROGRAM, "-q", folder / "pgbouncer.ini"], cwd="/", **as_user)  # type: ignore[call-overload]
        url = f"postgresql://{server.username}:{server.password}@127.0.0.1:{port}{server.path}"
        try:
            deadline = time.monotonic() + 30
            while True:
                assert process.poll() is None, (folder / "log").read_text()
                try:
                    psycopg2.connect(url).close()
                    break
                except psycopg2.OperationalError:
                    assert time.monotonic() < deadline, (folder / "log").read_text()
                    time.sleep(0.1)
            yield Pooled(url, database_url)
        finally:
            process.terminate()
            process.wait()


def test_many_processes_create_the_tables_over_few_connections(pooled: Pooled) -> None:
    """None may keep a connection while it waits for the one that creates the tables, which needs three."""
    made: list[bool] = []

    def create() -> None:
        with closing(Database(pooled.url, patience=60)) as database:
            database.create_tables()
            made.append(database.has_tables())

    threads = [threading.Thread(target=create) for _ in range(3 * POOL)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert not any(thread.is_alive() for thread in threads)
    assert made == [True] * len(threads)


def test_a_search_of_more_workers_than_connections_is_exact(pooled: Pooled) -> None:
    """The number of trials is exact, though each transaction of a process may be in another session of the server."""
    found = simulate(pooled.url, workers=3 * POOL, trials=60)
    assert (found.finished, found.failed) == (60, 0)
    assert found.connections_peak <= POOL
    assert pooled.server_connections() <= POOL


def test_killed_workers_lose_no_trial(pooled: Pooled, make_drill: Callable[..., Drill]) -> None:
    drill = replace(make_drill(epoch_seconds=0.2, trials=12, epochs=3, lease_seconds=4.0), url=pooled.url)
    database = Database(pooled.url)
    try:
        with Fleet(drill) as fleet:
            fleet.start_at_once(workers=6, coordinators=1)
            fleet.until(lambda: len(fleet.begun()) >= 4)
            fleet.workers[0].kill()
            fleet.workers[1].terminate()
            fleet.join(120)
        check_end(database, drill)
        assert pooled.server_connections() <= POOL
    finally:
        database.close()


def test_the_monitor_reads_one_moment_and_sees_no_limit_of_workers(
    pooled: Pooled, make_drill: Callable[..., Drill]
) -> None:
    assert read_searches(pooled.url, ".*") == []
    assert workers_limit(pooled.direct, 1) is not None
    for _ in range(2 * POOL):
        assert workers_limit(pooled.url, 1) is None
