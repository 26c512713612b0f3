"""Serves Optuna's dashboard on the searches in a database, for looking only."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from shared.errors import ConfigError
from shared.log import Log
from shared.search.storage import Database, quiet_optuna
from shared.stop import StopSignal

HOST = "127.0.0.1"  # it asks nobody for a password
CONNECTIONS = 2  # to PostgreSQL, however many requests the page makes at once
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

_log = Log("dashboard")


def serve_dashboard(url: str, port: int, stop: StopSignal, ready: Callable[[str], None]) -> None:
    """Serves until the signal; `ready` is told the address. The page comes from this process, so that no other sees `url`.

    Raises ConfigError if nothing has been searched yet or the port is taken, and what the database raises.
    """
    from optuna_dashboard import wsgi

    quiet_optuna()
    with closing(Database(url, connections=CONNECTIONS)) as database:
        if not database.call("looking for searches", database.has_tables):
            raise ConfigError(
                f"PostgreSQL at {database.label}: holds no search yet; `tailfill run` begins them, `tailfill status` says where the study stands"
            )
        with _server(port, looking_only(wsgi(database.storage))) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.1,))
            thread.start()
            try:
                _log.info("serving; Ctrl-C ends it")
                ready(f"http://{HOST}:{server.server_port}/dashboard")
                while not stop.wait(1.0):
                    pass
            finally:
                server.shutdown()
                thread.join()


def looking_only(application: Application) -> Application:
    """Lets requests that read through only: what the dashboard writes would bypass the leases, and deleting a study would end a search."""

    def guarded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return application(environ, start_response)
        reason = "tailfill's dashboard is for looking only: a search is changed by its study file"
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": reason}).encode()]

    return guarded


class _Server(ThreadingMixIn, WSGIServer):
    """Serves each connection in a thread: browsers open some in advance and leave them idle, which would hold up a single thread."""

    daemon_threads = True
    block_on_close = False


class _Handler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Logs nothing: a line per request would bury the address that was printed."""


def _server(port: int, application: Application) -> WSGIServer:
    try:
        return make_server(HOST, port, application, _Server, _Handler)
    except OSError as error:
        raise ConfigError(
            f"--port {port}: cannot be listened on at {HOST} ({error.strerror}); name another, or 0 for any that is free"
        ) from error
