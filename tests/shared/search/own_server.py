"""A PostgreSQL of a test's own, which may go away and come back."""

from __future__ import annotations

import signal
from pathlib import Path

import psycopg2

from shared.services.postgres import Postgres, start_postgres
from shared.services.process import start, unprivileged_user


class OwnServer:
    """A server that can be restarted on the same port."""

    def __init__(self, folder: Path) -> None:
        self._postgres = start_postgres(folder)
        self.url = self._postgres.url.get_secret_value()

    def stop(self) -> None:
        """Cuts all clients off."""
        self._postgres.server.stop()

    def start(self) -> None:
        """Starts it again after a stop."""
        server = self._postgres.server
        command = [str(part) for part in server.process.args]  # type: ignore[union-attr]
        data = Path(command[command.index("-D") + 1])
        new = start(
            "PostgreSQL", command, data, server.log, {"LC_ALL": "C", "TZ": "UTC"}, signal.SIGINT, unprivileged_user()
        )
        new.wait_ready(lambda: accepts(self.url), 30)
        self._postgres = Postgres(new, self._postgres.url)

    def restart(self) -> None:
        """Both at once."""
        self.stop()
        self.start()


def accepts(url: str) -> bool:
    """Whether a server takes connections there."""
    try:
        psycopg2.connect(url, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True
