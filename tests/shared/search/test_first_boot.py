"""Tests that all processes may start at once or in the wrong order, on an empty database or before the database."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from shared.search.storage import Database
from tests.support.search.drill import Drill
from tests.support.search.fleet import Fleet, check_end, run_silent_worker
from tests.support.search.own_server import OwnServer

MakeDrill = Callable[..., Drill]


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_many_workers_and_coordinators_on_an_empty_database(database_url: str, make_drill: MakeDrill) -> None:
    """No process fails, and there are exactly as many trials as the budget says, although more workers ask for the last ones than are left."""
    drill = replace(make_drill(epoch_seconds=0.5, trials=43, epochs=1, lease_seconds=60.0), url=database_url)
    with Fleet(drill) as fleet:
        fleet.start_at_once(workers=32, coordinators=4)
        assert fleet.join(150) == [0] * 32
        assert [coordinator.exitcode for coordinator in fleet.coordinators] == [0] * 4
    database = Database(database_url)
    try:
        check_end(database, drill)
        assert len(fleet.begun()) == 43
    finally:
        database.close()


@pytest.mark.timeout(200)
def test_a_worker_waits_for_the_database_and_then_for_a_coordinator(tmp_path: Path, make_drill: MakeDrill) -> None:
    server = OwnServer(tmp_path / "postgres")
    server.stop()
    drill = replace(make_drill(trials=3), url=server.url)
    database = Database(server.url)
    try:
        with Fleet(drill) as fleet:
            with socket.create_server(("127.0.0.1", urlsplit(server.url).port)) as nobody:
                nobody.settimeout(90)
                fleet.add_worker(run_silent_worker)
                for _ in range(3):  # it asks again
                    nobody.accept()[0].close()
            server.start()
            fleet.until(lambda: clients(database) > 0)
            assert not database.has_tables()
            fleet.add_coordinator()
            assert fleet.join(90) == [0]
        check_end(database, drill)
    finally:
        database.close()
        server.stop()


def clients(database: Database) -> int:
    """Returns the number of connections beside our own."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    with database.transaction() as connection:
        return int(connection.scalar(text(sql)) or 0)
