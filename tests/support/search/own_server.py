"""Runs a PostgreSQL for one test, which can be stopped and started, and a proxy to a server that can be disconnected."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2

from shared.services.postgres import Postgres, start_postgres
from shared.services.process import start, unprivileged_user


class Proxy:
    """Forwards connections to a server. `cut` ends them and refuses new ones until `mend`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = parts.hostname, parts.port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.url = parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{self._port}")).geturl()
        self._ends: list[socket.socket] = []

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def cut(self) -> None:
        """Ends all connections, and refuses new ones."""
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends.clear()

    def mend(self) -> None:
        """Accepts connections again."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self.__enter__()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # cut
            try:
                server = socket.create_connection(self._server)
            except OSError:
                client.close()
                continue  # the server is stopped
            self._ends += [client, server]
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


class OwnServer:
    """Runs a server that can be restarted on the same port."""

    def __init__(self, folder: Path) -> None:
        self._postgres = start_postgres(folder)
        self.url = self._postgres.url.get_secret_value()

    def new_database(self) -> str:
        """Creates an empty database, and returns its URL."""
        name = f"test_{uuid.uuid4().hex}"
        connection = psycopg2.connect(self.url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        connection.close()
        return f"{self.url.rpartition('/')[0]}/{name}"

    def stop(self) -> None:
        """Stops the server, which disconnects all clients."""
        self._postgres.server.stop()

    def start(self) -> None:
        """Starts the server again after a stop."""
        server = self._postgres.server
        command = [str(part) for part in server.process.args]  # type: ignore[union-attr]
        data = Path(command[command.index("-D") + 1])
        new = start(
            "PostgreSQL", command, data, server.log, {"LC_ALL": "C", "TZ": "UTC"}, signal.SIGINT, unprivileged_user()
        )
        new.wait_ready(lambda: accepts(self.url), 30)
        self._postgres = Postgres(new, self._postgres.url)

    def restart(self) -> None:
        """Stops the server and starts it again."""
        self.stop()
        self.start()


def accepts(url: str) -> bool:
    """Returns whether a server accepts connections at the URL."""
    try:
        psycopg2.connect(url, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True
