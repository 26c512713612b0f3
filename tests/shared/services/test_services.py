"""Tests the embedded services: they start, keep their data, bind loopback only, and end with their parent."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from shared.errors import ConfigError, UnavailableError
from shared.services.services import services
from shared.settings import Settings

ROOT = Path(__file__).parents[3]
NOTHING = Settings.from_environment({})

COMMAND = """
import json, os, sys, time
from pathlib import Path
from shared.services.services import services
from shared.settings import Settings
import psycopg2
from shared.artifacts.open import open_store

with services(Path(sys.argv[1]), Settings.from_environment({})) as environment:
    with psycopg2.connect(environment["DATABASE_URL"]) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS runs (at int)")
        cursor.execute("INSERT INTO runs VALUES (1)")
        cursor.execute("SELECT count(*) FROM runs")
        (rows,) = cursor.fetchone()
        cursor.execute("SHOW max_connections")
        (connections,) = cursor.fetchone()
    connection.close()
    store = open_store(Settings.from_environment(environment))
    created = store.create("kept", b"data")
    print(json.dumps({"rows": rows, "created": created, "kept": store.get("kept").decode(), "connections": connections}), flush=True)
    if sys.argv[2] == "wait":
        time.sleep(60)
"""


def run(workdir: Path, then: str, **arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", COMMAND, str(workdir), then]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **arguments)  # type: ignore[call-overload,no-any-return]


def report(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError(process.communicate()[1])
    found: dict[str, object] = json.loads(line)
    return found


def servers(workdir: Path) -> list[psutil.Process]:
    """Returns the processes of servers that work in the folder."""
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"] in ("postgres", "weed") and Path(process.cwd()).is_relative_to(workdir):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def assert_gone(workdir: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while left := servers(workdir):
        assert time.monotonic() < end, left
        time.sleep(0.05)


def test_nothing_is_left_after_a_hard_kill_and_the_data_stay(tmp_path: Path) -> None:
    first = run(tmp_path, "wait")
    assert report(first) == {"rows": 1, "created": True, "kept": "data", "connections": "400"}
    assert {process.name() for process in servers(tmp_path)} == {"postgres", "weed"}
    first.kill()
    first.communicate()
    assert_gone(tmp_path, 5)
    second = run(tmp_path, "end")
    assert report(second) == {"rows": 2, "created": False, "kept": "data", "connections": "400"}
    second.communicate()
    assert second.returncode == 0
    assert servers(tmp_path) == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_after_a_signal(tmp_path: Path, how: signal.Signals) -> None:
    process = run(tmp_path, "wait")
    report(process)
    start = time.monotonic()
    process.send_signal(how)
    process.communicate()
    assert_gone(tmp_path, start + 5 - time.monotonic())


def test_loopback_only_and_secrets_for_the_owner_only(tmp_path: Path) -> None:
    with services(tmp_path, NOTHING) as environment:
        listening = [
            connection.laddr
            for process in servers(tmp_path)
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
        ]
        assert len(listening) >= 2
        assert {address.ip for address in listening} == {"127.0.0.1"}
        sockets = {c.laddr for p in servers(tmp_path) for c in p.net_connections("unix") if c.laddr}
        assert all(name.startswith("/tmp/seaweedfs-") for name in sockets)
        password = re.fullmatch(
            r"postgresql://tailfill:(\w{40})@127\.0\.0\.1:\d+/postgres", environment["DATABASE_URL"]
        )
        assert password is not None
        secrets = {password[1], environment["AWS_SECRET_ACCESS_KEY"], environment["AWS_ACCESS_KEY_ID"]}
        for process in servers(tmp_path):
            secrets |= {value for name, value in process.environ().items() if name.startswith("WEED_JWT_")}
        key = (tmp_path / "s3/tls/key.pem").read_text()
        secrets |= set(key.splitlines()[1:-1])
        assert len(secrets) == 3 + 4 + 3
        shown = [" ".join(process.cmdline()) for process in servers(tmp_path)]
        assert not any(secret in text for secret in secrets for text in shown)
    assert not any(Path(name).exists() for name in sockets)
    logs = list(tmp_path.glob("*/*.log"))
    assert len(logs) >= 3
    # a name, which SeaweedFS logs and which each request contains in plain text
    secrets.remove(environment["AWS_ACCESS_KEY_ID"])
    assert not any(secret in path.read_text() for secret in secrets for path in logs)
    for name in ("postgres/password", "s3/access-key", "s3/secret-key", "s3/tls/key.pem", "s3/tls/certificate.pem"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
    for name in ("postgres/data", "s3/data", "s3/tls"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "postgres" / "initdb-password").exists()


def test_the_database_asks_for_the_password(postgres_url: str) -> None:
    import psycopg2

    wrong = re.sub(r":\w{40}@", ":wrong@", postgres_url)
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(wrong)


def test_servers_that_the_environment_names_are_not_started(tmp_path: Path) -> None:
    named = {"DATABASE_URL": "postgresql://elsewhere/db", "TAILFILL_STORE": "s3://bucket"}
    with services(tmp_path, Settings.from_environment(named)) as environment:
        assert environment == {}
        assert servers(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_an_endpoint_without_a_store(tmp_path: Path) -> None:
    settings = Settings.from_environment({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9000"})
    with pytest.raises(ConfigError, match="TAILFILL_STORE: is not set"), services(tmp_path, settings):
        pass


def test_a_work_directory_has_one_user(tmp_path: Path) -> None:
    named = Settings.from_environment({"DATABASE_URL": "postgresql://elsewhere/db", "TAILFILL_STORE": "s3://bucket"})
    with services(tmp_path, named):  # noqa: SIM117
        with pytest.raises(
            UnavailableError, match=rf"another tailfill \(process {os.getpid()}\) uses this work directory"
        ):
            with services(tmp_path, named):
                pass
    with services(tmp_path, named):
        pass


def test_leftovers_of_a_killed_run_are_ended(tmp_path: Path) -> None:
    """Only the postmaster was killed; its pid file is left, and another process now has its number."""
    from shared.services.postgres import start_postgres

    first = start_postgres(tmp_path)
    first.server.process.kill()
    first.server.process.wait()
    pid_file = tmp_path / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    second = start_postgres(tmp_path)
    assert re.sub(r":\d+/", "/", second.url.get_secret_value()) == re.sub(r":\d+/", "/", first.url.get_secret_value())
    third = start_postgres(tmp_path)  # the second still runs, as if its death signal had been lost
    second.server.process.wait(0)
    third.server.stop()


def test_a_damaged_data_folder_is_explained(tmp_path: Path) -> None:
    from shared.services.postgres import start_postgres

    start_postgres(tmp_path).server.stop()
    (tmp_path / "data" / "global" / "pg_control").unlink()
    with pytest.raises(
        UnavailableError, match=r"PostgreSQL: ended with \d+ as it started; .*postgres.log ends with: .*control"
    ) as caught:
        start_postgres(tmp_path)
    assert "\n" not in str(caught.value)


def test_sockets_of_killed_servers_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shared.services import s3

    monkeypatch.setattr(s3, "SOCKETS", tmp_path)
    living = socket.socket(socket.AF_UNIX)
    living.bind(str(tmp_path / "seaweedfs-s3-1.sock"))
    living.listen()
    for name in ("seaweedfs-s3-2.sock", "seaweedfs-s3-grpc-3.sock", "other.sock", "seaweedfs-filer-4.sock"):
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(tmp_path / name))
            killed.listen()
    for path in tmp_path.iterdir():
        if "filer" not in path.name:  # a new one may be about to listen
            os.utime(path, (0, 0))
    s3._remove_stale_sockets()
    left = {"seaweedfs-s3-1.sock", "seaweedfs-filer-4.sock", "other.sock"}
    assert {path.name for path in tmp_path.iterdir()} == left
    living.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; all else here runs as a user already")
def test_as_an_unprivileged_user() -> None:
    from shared.services.process import User, become

    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        workdir = Path(name)
        os.chown(workdir, 65534, 65534)
        environment = {"PATH": "/usr/bin:/bin", "HOME": name, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)}
        # with the right to read, as this Python may lie in a folder that only root may enter
        process = run(workdir, "wait", env=environment, cwd="/", preexec_fn=lambda: become(User(65534, 65534)))
        assert report(process)["rows"] == 1
        assert {p.uids().real for p in servers(workdir)} == {65534}
        process.kill()
        process.communicate()
        assert_gone(workdir, 5)


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder that only root may enter")
def test_as_root_below_a_folder_that_only_root_may_enter(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    from shared.services.postgres import start_postgres

    postgres = start_postgres(closed / "work")
    status = Path(f"/proc/{postgres.server.process.pid}/status").read_text()
    assert re.search(r"^Uid:\s65534\s65534\s65534", status, re.M)
    (effective,) = re.findall(r"^CapEff:\s(\w+)", status, re.M)
    # of root's capabilities, only the one that reads in spite of permissions
    assert int(effective, 16).bit_count() == 1
    assert oct((closed).stat().st_mode & 0o777) == "0o700"
    postgres.server.stop()
