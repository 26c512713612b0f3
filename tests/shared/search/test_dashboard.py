"""Tests that Optuna's dashboard is on loopback and read-only, and does not show the password."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import psutil
import pytest

from shared.errors import ConfigError
from shared.search.dashboard import by_own_name, serve_dashboard
from shared.search.search_state import make_study
from shared.search.storage import Database
from shared.stop import StopSignal
from tests.support.search.drill import Drill


@pytest.fixture
def site(
    database: Database, postgres_url: str, make_drill: Callable[..., Drill], caplog: pytest.LogCaptureFixture
) -> Iterator[tuple[str, str]]:
    """Yields the address of a running dashboard, and the name of a search in its database."""
    caplog.set_level("INFO", "tailfill")
    drill = make_drill()
    make_study(database, drill.name, drill.search)
    stop, told, there = StopSignal(), list[str](), threading.Event()

    def ready(url: str) -> None:
        told.append(url)
        there.set()

    thread = threading.Thread(target=serve_dashboard, args=(postgres_url, 0, stop, ready))
    thread.start()
    assert there.wait(30)
    assert "serving; Ctrl-C ends it" in caplog.messages
    yield told[0].removesuffix("/dashboard"), drill.name
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def test_it_lists_the_searches_and_changes_nothing(site: tuple[str, str], postgres_url: str) -> None:
    address, name = site
    with urllib.request.urlopen(f"{address}/api/studies", timeout=10) as answer:
        studies = {study["study_name"]: study["study_id"] for study in json.load(answer)["study_summaries"]}
    assert name in studies
    with urllib.request.urlopen(f"{address}/dashboard", timeout=10) as page:
        assert "Optuna Dashboard" in page.read().decode()
    for method in ("POST", "PUT", "DELETE"):
        request = urllib.request.Request(f"{address}/api/studies/{studies[name]}", data=b"{}", method=method)
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(request, timeout=10)
        assert "for looking only" in json.load(refused.value)["reason"]
        refused.value.close()
    with urllib.request.urlopen(f"{address}/api/studies/{studies[name]}?after=0", timeout=10) as answer:
        assert answer.status == 200
    password = postgres_url.split(":")[2].partition("@")[0]
    assert not [word for word in psutil.Process().cmdline() if password in word]


@pytest.mark.parametrize("host", ["127.0.0.1:{}", "localhost:{}", "LOCALHOST:{}", "[::1]:{}"])
def test_it_answers_to_its_own_names(site: tuple[str, str], host: str) -> None:
    assert _status(site[0], host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example:{}", "evil.example", "127.0.0.1", "localhost:1", "localhost:{}.evil.example", "", None]
)
def test_it_answers_to_no_other_name(site: tuple[str, str], host: str | None) -> None:
    """A page of another site whose name resolves to this machine would have the browser send that name."""
    assert _status(site[0], host) == 403


def _status(address: str, host: str | None) -> int:
    place = address.removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(place, timeout=10)) as connection:
        connection.putrequest("GET", "/api/studies", skip_host=True)
        if host is not None:
            connection.putheader("Host", host.format(place.rpartition(":")[2]))
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
    assert ("answers to 127.0.0.1" in text) == (answer.status == 403)
    return answer.status


def test_port_80_goes_without_saying() -> None:
    seen = []
    application = by_own_name(lambda environ, _: [environ["HTTP_HOST"].encode()])
    for host in ("localhost", "localhost:80", "evil.example"):
        environ = {"SERVER_PORT": "80", "HTTP_HOST": host}
        seen.append(next(iter(application(environ, lambda *_: None))) == host.encode())
    assert seen == [True, True, False]


def test_it_listens_on_loopback_only(site: tuple[str, str]) -> None:
    port = int(site[0].rpartition(":")[2])
    bound = [
        c.laddr.ip for c in psutil.Process().net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port
    ]
    assert bound == ["127.0.0.1"]


def test_a_taken_port_is_named(database: Database, postgres_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}: cannot be listened on .*; name another, or 0"):
            serve_dashboard(postgres_url, port, StopSignal(), print)


def test_nothing_to_look_at(database_url: str) -> None:
    with pytest.raises(ConfigError, match="holds no search yet; `tailfill run` begins them"):
        serve_dashboard(database_url, 0, StopSignal(), print)


def test_an_idle_connection_holds_nothing_up(site: tuple[str, str]) -> None:
    address, _ = site
    place = ("127.0.0.1", int(address.rpartition(":")[2]))
    with socket.create_connection(place), urllib.request.urlopen(f"{address}/api/studies", timeout=10) as answer:
        assert answer.status == 200
