"""Tests `/metrics` as Prometheus reads it: over HTTP, from a search that real processes work on."""

from __future__ import annotations

import itertools
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from shared.errors import ConfigError
from shared.search import metrics
from shared.search.http_server import CONNECTIONS
from shared.search.metrics import SearchMetrics
from shared.search.metrics_server import metrics_served
from shared.search.monitor import SearchSnapshot, read_searches
from shared.settings import Settings
from tests.support.search.drill import Drill, processes, run_coordinator, run_worker

Samples = dict[tuple[str, str], float]


def settings(url: str, port: int) -> Settings:
    found = Settings.from_environment({"TAILFILL_METRICS_PORT": str(port)})
    return Settings(**{**found.__dict__, "database_url": SecretStr(url)})


def scrape(port: int) -> Samples:
    """Returns the values by name and state; every sample must have the labels of this study."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert sample.labels["study"] == "drill"
            found[sample.name, sample.labels.get("state", "")] = sample.value
    return found


@pytest.fixture
def port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        found: int = unused.getsockname()[1]
        return found


def test_a_search_from_its_first_trial_to_its_last(
    make_drill: Callable[..., Drill], postgres_url: str, port: int
) -> None:
    drill = make_drill(epoch_seconds=0.2, trials=3)
    running = [processes().Process(target=target, args=(drill,)) for target in (run_coordinator, run_worker)]
    patient = itertools.count(0.0, metrics.CACHE_SECONDS).__next__  # each request finds the last snapshot too old
    with metrics_served(settings(postgres_url, port), "drill", f"^{drill.name}$", clock=patient) as served:
        assert served == port
        assert scrape(port) == {("tailfill_database_up", ""): 1.0}  # no search yet
        for process in running:
            process.start()
        deadline = time.monotonic() + 60
        while scrape(port).get(("tailfill_trials", "running"), 0) < 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        during = scrape(port)
        assert during["tailfill_workers", ""] == 1
        for process in running:
            process.join(60)
            assert process.exitcode == 0
        after = scrape(port)
    assert {state: after["tailfill_trials", state] for state in metrics.STATES} == {
        "complete": 3, "pruned": 0, "failed": 0, "running": 0, "queued": 0,
    }  # fmt: skip
    (search,) = read_searches(postgres_url, f"^{drill.name}$")
    assert after["tailfill_best_value", ""] == pytest.approx(search.best)
    assert after["tailfill_worker_seconds_total", ""] == pytest.approx(search.used_seconds)
    assert after["tailfill_gpu_seconds_total", ""] == after["tailfill_gpu_lost_seconds_total", ""] == 0
    assert (after["tailfill_resumes_total", ""], after["tailfill_stale_leases", ""]) == (0, 0)
    assert after["tailfill_workers", ""] == 0  # it signed off
    assert {name for name, _ in after} == {
        "tailfill_database_up",
        "tailfill_trials",
        *metrics.GAUGES,
        *(f"{name}_total" for name in metrics.COUNTERS),
    }
    with pytest.raises(OSError, match="refused"):
        scrape(port)


def test_a_database_that_is_away_is_a_metric(port: int) -> None:
    with metrics_served(settings("postgresql://u:the-password@127.0.0.1:1/d", port), "drill", ".*"):
        assert scrape(port) == {("tailfill_database_up", ""): 0.0}


def test_idle_clients_hold_no_scraper_up(port: int) -> None:
    with ExitStack() as stack:
        stack.enter_context(metrics_served(settings("postgresql://u:the-password@127.0.0.1:1/d", port), "drill", ".*"))
        before = threading.active_count()
        for _ in range(3 * CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert scrape(port) == {("tailfill_database_up", ""): 0.0}
        assert threading.active_count() <= before + CONNECTIONS + 1  # one may be about to end


def test_a_look_is_kept_for_a_while_and_of_one_experiment_the_latest_search_counts(
    make_drill: Callable[..., Drill], postgres_url: str
) -> None:
    looks, now = [], [0.0]

    def read() -> list[SearchSnapshot]:
        looks.append(1)
        common = dict.fromkeys(SearchSnapshot.__annotations__, 0) | {"experiment": "real", "bests": (), "front": None}
        return [SearchSnapshot(**{**common, "ticked_seconds": s, "complete": n}) for s, n in ((5, 7), (900, 2))]  # type: ignore[arg-type]

    collector = SearchMetrics("drill", read, clock=lambda: now[0])
    assert looks == []
    for now[0] in (0.0, 1.0, metrics.CACHE_SECONDS - 0.1):
        samples = [sample for family in collector.collect() for sample in family.samples]
    assert looks == [1]
    now[0] = metrics.CACHE_SECONDS
    list(collector.collect())
    assert looks == [1, 1]
    complete = [s.value for s in samples if s.labels.get("state") == "complete"]
    assert complete == [7]
    assert not [s for s in samples if s.name == "tailfill_best_value"]


def test_a_taken_port_is_named(postgres_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        match = f"TAILFILL_METRICS_PORT: {number} cannot be listened on at 127.0.0.1 .*; name another port, or unset it"
        with pytest.raises(ConfigError, match=match), metrics_served(settings(postgres_url, number), "drill", ".*"):
            pass


def test_none_is_served_where_none_is_named(postgres_url: str) -> None:
    with metrics_served(settings(postgres_url, 0), "drill", ".*") as served:
        assert served is None
