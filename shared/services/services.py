"""Runs the services of a study on one machine: starts those that the environment does not name, and stops them with the command."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from shared.artifacts.disk import disk_errors, whole_file
from shared.errors import ConfigError, UnavailableError
from shared.log import Log
from shared.names import LONGEST_PART, has_control_character, is_text, shown
from shared.services.own_settings import own_settings
from shared.services.process import Server
from shared.settings import Settings

log = Log("services")

LONGEST_PATH = 900  # bytes, as PostgreSQL takes 1,023 for each of its files
ENVIRONMENT = "services.json"  # in the work directory while a command uses it, readable by its owner only


class InUse(UnavailableError):
    """Says that another command uses the work directory."""


def check_services(workdir: Path, settings: Settings, database: bool = True) -> None:
    """Raises ConfigError for what would keep the servers in `workdir` from starting (PostgreSQL only with `database`); makes nothing."""
    if settings.store is None and settings.s3_endpoint is not None:
        raise ConfigError(
            f"TAILFILL_STORE: is not set, though AWS_ENDPOINT_URL_S3 names {settings.s3_endpoint}; set it to s3://bucket"
        )
    if (fault := _path_fault(str(workdir.absolute()))) is not None:
        raise ConfigError(f"--workdir {shown(workdir)}: its path {fault}; name another folder")
    if database and settings.database_url is None and not (workdir / "postgres" / "initialised").exists():
        from shared.services.postgres import check_user

        check_user()


def _path_fault(path: str) -> str | None:
    if not is_text(path):
        return "is no text in UTF-8"
    if has_control_character(path):
        return "has a control character"
    if len(path.encode()) > LONGEST_PATH or max(map(len, path.encode().split(b"/"))) > LONGEST_PART:
        return f"is too long (a part has at most {LONGEST_PART} bytes, the whole {LONGEST_PATH})"
    return None


@contextmanager
def services(workdir: Path, settings: Settings, database: bool = True) -> Iterator[dict[str, str]]:
    """Starts PostgreSQL and SeaweedFS in `workdir` as far as needed, yields the variables that name them, and stops them.

    PostgreSQL is needed if `DATABASE_URL` is unset and `database` is not False, SeaweedFS if `TAILFILL_STORE` is unset. While it yields, the
    environment has no settings of other servers that would reach these (see `own_settings`). Call it in the main thread. Raises
    UnavailableError if another command uses the work directory or a server does not start, ConfigError if an endpoint is named without a store.
    """
    check_services(workdir, settings, database)
    with _locked(workdir), ExitStack() as stack:
        servers: list[Server] = []
        stack.enter_context(own_settings(settings.database_url is None, settings.store is None))
        stack.callback(_stop, servers)
        environment = _start(workdir, settings, servers, database)
        stack.callback((workdir / ENVIRONMENT).unlink, missing_ok=True)
        with whole_file(workdir / ENVIRONMENT) as temporary:
            temporary.write_text(json.dumps(environment))
        yield environment


@contextmanager
def joined_services(workdir: Path, settings: Settings, database: bool = True) -> Iterator[dict[str, str]]:
    """Yields the variables of the services of the command that uses the work directory now, or starts them if there is none.

    Raises what `services` raises, and UnavailableError if that command has no database and `database` asks for one.
    """
    try:
        with services(workdir, settings, database) as environment:
            yield environment
    except InUse:
        try:
            environment = json.loads((workdir / ENVIRONMENT).read_bytes())
        except (OSError, ValueError) as error:
            raise UnavailableError(
                f"{workdir}: another tailfill is starting or ending there; try again in a few seconds"
            ) from error
        if database and settings.database_url is None and "DATABASE_URL" not in environment:
            raise UnavailableError(
                f"{workdir}: another tailfill reads the model there, without the database; try again in a few seconds"
            ) from None
        with own_settings("DATABASE_URL" in environment, "TAILFILL_STORE" in environment):
            yield environment


def _start(workdir: Path, settings: Settings, servers: list[Server], database: bool) -> dict[str, str]:
    environment: dict[str, str] = {}
    seaweedfs = None
    if settings.store is None:
        from shared.services.s3 import ready_seaweedfs, start_seaweedfs

        seaweedfs = start_seaweedfs(workdir / "s3")  # it starts while PostgreSQL does
        servers.append(seaweedfs.server)
    if database and settings.database_url is None:
        from shared.services.postgres import start_postgres

        postgres = start_postgres(workdir / "postgres")
        servers.append(postgres.server)
        environment["DATABASE_URL"] = postgres.url.get_secret_value()
        log.info("PostgreSQL is up", data=workdir / "postgres")
    if seaweedfs is not None:
        ready = ready_seaweedfs(workdir / "s3", seaweedfs)
        servers.append(ready.server)
        environment.update(ready.environment())
        log.info("SeaweedFS is up", endpoint=ready.endpoint, data=workdir / "s3")
    return environment


def _stop(servers: list[Server]) -> None:
    for server in servers:
        server.ask_to_stop()
    for server in servers:
        server.stop()


@contextmanager
def _locked(workdir: Path) -> Iterator[None]:
    """Locks the work directory for this process; the kernel unlocks it when the process ends for any reason."""
    path = workdir / "lock"
    with disk_errors(path):
        workdir.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InUse(
                f"{workdir}: another tailfill (process {file.read().strip() or 'unknown'}) uses this work directory; "
                "wait until it ends, or choose another --workdir"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
