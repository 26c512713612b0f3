"""Tests the small HTTP server with slow, idle and many clients."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from shared.search import http_server
from shared.search.http_server import Application, listen, serving

Serve = Callable[[Application], int]


def hello(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"hello"]


def get(port: int, host: str = "127.0.0.1") -> bytes:
    with contextlib.closing(http.client.HTTPConnection(host, port, timeout=10)) as connection:
        connection.request("GET", "/")
        return connection.getresponse().read()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves an application on loopback until the test ends."""
    with contextlib.ExitStack() as stack:

        def begin(application: Application) -> int:
            server = listen("127.0.0.1", 0, application)
            stack.enter_context(serving(server))
            return server.server_port

        yield begin


@pytest.fixture
def connect() -> Iterator[Callable[[int], socket.socket]]:
    """Makes connections that stay until the test ends."""
    with contextlib.ExitStack() as stack:
        yield lambda port: stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: slow"], ids=["idle", "slow"])
def test_clients_without_a_request_hold_no_other_up(
    serve: Serve, connect: Callable[[int], socket.socket], sent: bytes
) -> None:
    port, before = serve(hello), threading.active_count()
    for _ in range(3 * http_server.CONNECTIONS):  # fewer than wait to be accepted
        connect(port).sendall(sent)
    start = time.monotonic()
    assert get(port) == b"hello"
    assert time.monotonic() - start < 5  # not SECONDS
    assert threading.active_count() <= before + http_server.CONNECTIONS + 1  # one may be about to end


def test_the_oldest_goes_first(serve: Serve, connect: Callable[[int], socket.socket]) -> None:
    port = serve(hello)
    idle = [connect(port) for _ in range(http_server.CONNECTIONS)]
    assert get(port) == b"hello"
    assert idle[0].recv(1) == b""
    idle[1].sendall(b"GET / HTTP/1.0\r\n\r\n")
    assert b"200 OK" in idle[1].recv(100)


def test_no_connection_lasts(
    serve: Serve, connect: Callable[[int], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "SECONDS", 0.5)
    client, start = connect(serve(hello)), time.monotonic()
    with contextlib.suppress(OSError):  # it sends a byte from time to time
        while time.monotonic() - start < 10:
            client.sendall(b"G")
            time.sleep(0.05)
    assert time.monotonic() - start < 5


def test_answers_that_are_under_way_are_not_cut_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "ROOM_SECONDS", 0.1)
    begun, go_on, answers = threading.Semaphore(0), threading.Event(), list[bytes]()

    def slow(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        begun.release()
        assert go_on.wait(10)
        return hello(environ, start_response)

    port = serve(slow)
    askers = [
        threading.Thread(target=lambda: answers.append(get(port)), daemon=True) for _ in range(http_server.CONNECTIONS)
    ]
    for asker in askers:
        asker.start()
    for _ in askers:
        assert begun.acquire(timeout=10)
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        get(port)  # all threads are answering, so this one is refused
    go_on.set()
    for asker in askers:
        asker.join(10)
    assert answers == [b"hello"] * http_server.CONNECTIONS
    assert get(port) == b"hello"


def test_it_is_silent_about_clients_that_go_away(
    serve: Serve, connect: Callable[[int], socket.socket], capsys: pytest.CaptureFixture[str]
) -> None:
    port = serve(hello)
    connect(port).close()
    connect(port).sendall(b"nonsense\r\n\r\n")
    assert get(port) == b"hello"
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_an_address_of_the_other_family() -> None:
    try:
        server = listen("::1", 0, hello)
    except OSError:
        pytest.skip("no IPv6 here")
    with serving(server):
        assert get(server.server_port, "::1") == b"hello"
