"""Serves Optuna's dashboard of the searches in a database, read-only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any
from wsgiref.simple_server import WSGIServer

from shared.errors import ConfigError
from shared.log import Log
from shared.search.http_server import LOOPBACK, Application, listen, serving
from shared.search.storage import Database, quiet_optuna
from shared.stop import StopSignal

HOST = "127.0.0.1"  # the page has no password
CONNECTIONS = 2  # to PostgreSQL, however many requests the page makes at once

_log = Log("dashboard")


def serve_dashboard(url: str, port: int, stop: StopSignal, ready: Callable[[str], None]) -> None:
    """Serves the dashboard until the stop signal, and calls `ready` with its address. It runs in this process, so that no other one sees `url`.

    Raises ConfigError if nothing has been searched yet or the port is taken, and what the database raises if it is unavailable.
    """
    from optuna_dashboard import wsgi

    quiet_optuna()
    with closing(Database(url, connections=CONNECTIONS)) as database:
        if not database.call("looking for searches", database.has_tables):
            raise ConfigError(
                f"PostgreSQL at {database.label}: holds no search yet; `tailfill run` begins them, `tailfill status` says where the study stands"
            )
        server = _server(port, by_own_name(looking_only(wsgi(database.storage))))
        with serving(server):
            _log.info("serving; Ctrl-C ends it")
            ready(f"http://{HOST}:{server.server_port}/dashboard")
            while not stop.wait(1.0):
                pass


def looking_only(application: Application) -> Application:
    """Lets only reading requests through: what the dashboard writes would bypass the leases, and deleting a study would end a search."""

    def guarded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return application(environ, start_response)
        return _refuse(start_response, "is for looking only: a search is changed by its study file")

    return guarded


def by_own_name(application: Application) -> Application:
    """Lets requests through only if their Host header names this machine.

    A page from elsewhere could let its own name resolve to this machine (DNS rebinding), and so read what is served here.
    """

    def guarded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        port = environ["SERVER_PORT"]
        hosts = [f"{name}:{port}" for name in LOOPBACK] + (list(LOOPBACK) if port == "80" else [])  # 80 is the default
        if environ.get("HTTP_HOST", "").lower() in hosts:
            return application(environ, start_response)
        return _refuse(
            start_response, f"answers to {' and '.join(hosts)} only; give a tunnel the same port at both ends"
        )

    return guarded


def _refuse(start_response: Any, reason: str) -> Iterable[bytes]:
    start_response("403 Forbidden", [("Content-Type", "application/json")])
    return [json.dumps({"reason": f"tailfill's dashboard {reason}"}).encode()]


def _server(port: int, application: Application) -> WSGIServer:
    try:
        return listen(HOST, port, application)
    except OSError as error:
        raise ConfigError(
            f"--port {port}: cannot be listened on at {HOST} ({error.strerror}); name another, or 0 for any that is free"
        ) from error
