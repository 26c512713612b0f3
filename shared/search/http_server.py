"""Runs a small HTTP server for pages that people or Prometheus read; it limits threads and time, whoever connects."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

CONNECTIONS = 16  # at once, each with a thread; a browser opens six
SECONDS = 60.0  # that a connection may last
ROOM_SECONDS = 1.0  # that a new connection waits for a thread
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Lists the names under which a program of the same machine reaches what listens on loopback."""

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


def listen(host: str, port: int, application: Application, seconds: float | None = None) -> WSGIServer:
    """Returns a server of the application that already listens; raises OSError or OverflowError if it cannot.

    A connection lasts for `seconds` at most, for SECONDS by default.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    kind = type("Server", (_Server,), {"address_family": family, "seconds": SECONDS if seconds is None else seconds})
    return make_server(str(address[0]), port, application, kind, _Handler)


@contextlib.contextmanager
def serving(server: WSGIServer) -> Iterator[None]:
    """Lets the server answer from a thread while the `with` block runs, and closes it at the end."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@dataclass
class _Connection:
    began: float
    asked: bool = False
    """Says whether its request has arrived."""


class _Server(ThreadingMixIn, WSGIServer):
    """Serves each connection in a thread: browsers open some in advance and leave them idle, which would hold up a single one.

    If all threads are taken, a new connection takes the place of the oldest one that has not sent its request yet.
    """

    seconds: float
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, *arguments: Any) -> None:
        self._changed = threading.Condition()
        self._open: dict[socket.socket, _Connection] = {}  # the oldest first
        super().__init__(*arguments)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Returns whether there is a thread for the connection."""
        with self._changed:
            if len(self._open) >= CONNECTIONS:
                idle = next((each for each, connection in self._open.items() if not connection.asked), None)
                if idle is not None:
                    _end(idle)
                self._changed.wait_for(lambda: len(self._open) < CONNECTIONS, ROOM_SECONDS)
            if len(self._open) >= CONNECTIONS:
                return False
            self._open[request] = _Connection(time.monotonic())
            return True

    def asked(self, request: socket.socket) -> None:
        """Notes that the request of the connection has arrived."""
        with self._changed:
            self._open[request].asked = True

    def service_actions(self) -> None:
        """Ends connections that have lasted too long; called several times per second."""
        with self._changed:
            for request, connection in self._open.items():
                if time.monotonic() - connection.began > self.seconds:
                    _end(request)

    def shutdown_request(self, request: Any) -> None:
        """Closes the connection, at the end of its thread."""
        with self._changed:
            self._open.pop(request, None)
            self._changed.notify()
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs nothing about clients that closed their connection, or whose connection was closed."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _end(request: socket.socket) -> None:
    """Shuts down the connection, so that its thread ends."""
    with contextlib.suppress(OSError):  # the client has closed it
        request.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    timeout = SECONDS
    server: _Server

    def get_environ(self) -> dict[str, Any]:
        """Returns the request's WSGI environment. Being called means that the whole request has arrived, which it notes."""
        self.server.asked(self.connection)
        return super().get_environ()

    def log_message(self, *_: Any) -> None:
        """Prints nothing, since one line per request would hide the other output."""
