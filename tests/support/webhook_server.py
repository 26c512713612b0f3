"""Runs an HTTP server on loopback that answers posts as a test says, and keeps what was posted."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class WebhookServer:
    """Answers each post with the next of `answers`, the last of which repeats."""

    answers: Sequence[Any] = (200,)
    """Holds statuses, pairs of a status and headers, `hang` or `reset`."""
    address: str = ""
    posts: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    """Holds path, headers and body of each post."""
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def webhook_server(*answers: Any) -> Iterator[WebhookServer]:
    """Yields a server that runs until the block ends."""
    state = WebhookServer(answers or (200,))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            state.posts.append((self.path, dict(self.headers), body))
            answer = state.answers[min(len(state.posts), len(state.answers)) - 1]
            if answer == "hang":
                state.over.wait(60)
                self.close_connection = True
                return
            if answer == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return
            status, headers = answer if isinstance(answer, tuple) else (answer, {})
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            """Writes nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Writes nothing: a reset connection is meant."""

    server = Server(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
