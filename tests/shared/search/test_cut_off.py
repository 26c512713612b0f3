"""Tests a worker whose database is stopped: for less than its lease it waits, and for longer it loses the trial to another worker."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from tests.support.search import late_worker
from tests.support.search.drill import Drill
from tests.support.search.fleet import Fleet, check_end
from tests.support.search.ledger import Ledger
from tests.support.search.own_server import OwnServer, Proxy

MakeDrill = Callable[..., Drill]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """Yields a PostgreSQL that these tests may stop."""
    started = OwnServer(tmp_path_factory.mktemp("postgres"))
    yield started
    started.stop()


@pytest.fixture
def ledger(server: OwnServer) -> Iterator[Ledger]:
    """Yields the ledger of an empty database."""
    with Ledger(server.new_database()) as opened:
        yield opened


def leases(ledger: Ledger) -> list[dict[str, Any]]:
    """Returns all rows of the leases."""
    with ledger.database.transaction() as connection:
        return [
            dict(row._mapping) for row in connection.execute(text("SELECT * FROM tailfill_leases ORDER BY trial_id"))
        ]


@pytest.mark.timeout(200)
def test_for_less_than_its_lease_goes_on_with_the_same_trial(
    server: OwnServer, ledger: Ledger, make_drill: MakeDrill
) -> None:
    """It tries to report, to save checkpoints and to renew its lease while the server is stopped, and then continues the same attempt."""
    drill = replace(make_drill(epoch_seconds=0.4, trials=1, epochs=12, lease_seconds=15.0), url=ledger.url)
    with Fleet(drill) as fleet:
        fleet.add_worker()
        fleet.add_coordinator()
        fleet.until(lambda: len(ledger.changes("trial_intermediate_values")) >= 2)
        (held,) = leases(ledger)
        server.stop()
        time.sleep(3.0)  # such a lease is renewed every 2.5 s
        server.start()
        fleet.until(fleet.outcome)
        assert fleet.join(60) == [0]
    assert held["state"] == "held"
    check_end(ledger.database, drill)
    ledger.check_told_once()
    assert [attempt.epochs for attempt in ledger.attempts(drill)] == [0]
    (ended,) = leases(ledger)
    assert (ended["claims"], ended["losses"], ended["retries"]) == (1, 0, 0)


@pytest.mark.timeout(300)
def test_for_longer_than_its_lease_stops_and_reports_nothing(
    server: OwnServer, ledger: Ledger, make_drill: MakeDrill
) -> None:
    """It goes by its own clock, as no message reaches it. Another worker continues from its checkpoint, and its later writes are refused."""
    drill = replace(make_drill(0.1, trials=1, epochs=5, lease_seconds=3.0, max_retries=20), url=ledger.url)
    long, stopped, refused = (drill.folder / name for name in ("long", "stopped", "refused"))
    with Fleet(drill) as fleet, Proxy(drill.url) as proxy:
        late = fleet.add_worker(late_worker.run, replace(drill, url=proxy.url))
        fleet.add_coordinator()
        fleet.until(long.exists)
        server.stop()
        fleet.until(stopped.exists)
        proxy.cut()
        server.start()
        other = fleet.add_worker()
        fleet.until(fleet.outcome)
        assert not refused.exists()
        proxy.mend()
        (drill.folder / "mended").touch()
        assert fleet.join(60) == [0, 0]
    assert json.loads(refused.read_text()) == [["report", "save"]] * 2
    check_end(ledger.database, drill)
    ledger.check_told_once()
    first, *others = ledger.attempts(drill)
    assert ledger.check_resumed(drill) == others
    assert first.lease["worker"].endswith(f"/{late.pid}")
    assert {attempt.lease["worker"].rpartition("/")[2] for attempt in others} == {str(other.pid)}
    assert all(attempt.epochs >= 2 for attempt in others)
    for table in ("trial_values", "trial_intermediate_values"):
        assert str(late_worker.LATE) not in str([change.now for change in ledger.changes(table)])
