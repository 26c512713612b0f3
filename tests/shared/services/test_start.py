"""Tests starting the services: in folders of any name, for any user, and with a signal at any moment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from shared.errors import ConfigError
from shared.services import user_name as user_name_module
from shared.services.services import check_services, services
from shared.services.user_name import UserName, user_name
from shared.settings import Settings

NOTHING = Settings.from_environment({})
START = """
import sys
from pathlib import Path
from shared.errors import Stopped
from shared.services import s3
from shared.services.services import services
from shared.settings import Settings
from shared.stop import StopSignal

stop = StopSignal()
stop.install()
if len(sys.argv) > 2:
    s3._binary = lambda: Path(sys.argv[2])
try:
    with stop.interrupting(), services(Path(sys.argv[1]), Settings.from_environment({})):
        print("ready", flush=True)
        stop.wait(60)
except Stopped:
    sys.exit(143)
"""
DEAF = """#!{python}
import signal, socket, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
port = next(int(word.partition("=")[2]) for word in sys.argv if word.startswith("-s3.port="))
listening = socket.create_server(("127.0.0.1", port))
time.sleep(120)
"""
"""A server that accepts connections, never answers, and does not end when it is asked to."""


def begin(workdir: Path, *more: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", START, str(workdir), *map(str, more)], text=True)


def wait_for(process: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    """Returns all processes that it has started, as soon as one of this name is among them."""
    own, end = psutil.Process(process.pid), time.monotonic() + 30
    while time.monotonic() < end:
        children = own.children(recursive=True)
        if any(_name(child) == name for child in children):
            return children
        time.sleep(0.005)
    raise AssertionError(f"{name} was not started")


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def end_with(process: subprocess.Popen[str], how: signal.Signals) -> float:
    """Sends a signal, and returns the seconds until the process has ended."""
    start = time.monotonic()
    process.send_signal(how)
    assert process.wait(30) == 143
    return time.monotonic() - start


@pytest.mark.parametrize(
    ("moment", "how"),
    [
        ("weed", signal.SIGINT),
        ("initdb", signal.SIGINT),
        ("initdb", signal.SIGTERM),
        ("postgres", signal.SIGTERM),
    ],
)
def test_a_signal_ends_the_start_at_any_moment(tmp_path: Path, moment: str, how: signal.Signals) -> None:
    process = begin(tmp_path)
    started = wait_for(process, moment)
    assert end_with(process, how) < 5
    _, left = psutil.wait_procs(started, timeout=2)
    assert not left
    if moment == "initdb":
        with services(tmp_path, NOTHING) as environment:  # what was left half done is no obstacle
            assert "DATABASE_URL" in environment


def test_a_signal_ends_the_wait_for_a_server_that_does_not_answer(tmp_path: Path) -> None:
    deaf = tmp_path / "deaf"
    deaf.write_text(DEAF.format(python=sys.executable))
    deaf.chmod(0o755)
    process = begin(tmp_path / "work", deaf)
    started = wait_for(process, "postgres")
    time.sleep(3)  # PostgreSQL is up by now, and the bucket is being created
    assert end_with(process, signal.SIGINT) < 5
    _, left = psutil.wait_procs(started, timeout=2)
    assert not left


@pytest.mark.parametrize(
    "name", ["a,b", "-données 図 100%", '#?& it\'s "q" a:b=c;d $HOME `x` \\', "/".join(["x" * 200] * 3)]
)
def test_the_work_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    workdir = tmp_path / name
    with services(workdir, NOTHING) as environment:
        assert {"DATABASE_URL", "TAILFILL_STORE"} <= set(environment)
        assert {path.name for path in (workdir / "s3").iterdir()} >= {"data", "access-key"}
    made = [path for path in tmp_path.rglob("*") if path.is_dir() and not path.is_relative_to(workdir)]
    assert all(workdir.is_relative_to(path) for path in made)  # no stray folder


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (b"a\nb", "has a control character"),
        (b"latin\xe9", "is no text in UTF-8"),
        (b"x" * 256, "is too long"),
        (b"/".join([b"x" * 250] * 4), "is too long"),
    ],
)
def test_a_name_that_cannot_be_is_refused_before_anything_is_made(tmp_path: Path, name: bytes, fault: str) -> None:
    with pytest.raises(ConfigError, match=f"--workdir .*: its path {fault}.*; name another folder"):
        check_services(tmp_path / os.fsdecode(name), NOTHING)
    with pytest.raises(ConfigError), services(tmp_path / os.fsdecode(name), NOTHING):
        pass
    assert list(tmp_path.iterdir()) == []


UNKNOWN = """
import os, sys
from pathlib import Path
from shared.services.services import services
from shared.settings import Settings
import psycopg2

with services(Path("work"), Settings.from_environment({"TAILFILL_STORE": "store"})) as environment:
    psycopg2.connect(environment["DATABASE_URL"]).close()
print(os.stat("work/postgres/data").st_uid)
"""


AS_UNKNOWN = [
    "setpriv",
    "--reuid",
    "12345",
    "--regid",
    "12345",
    "--clear-groups",
    "--inh-caps",
    "+dac_read_search",
    "--ambient-caps",
    "+dac_read_search",
]
"""Starts a program as a user without a name, who may enter all folders, as the interpreter may be in one of root's own."""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_a_user_without_a_name_has_a_database() -> None:
    if not user_name_module._starts(Path(shutil.which("true") or "true"), _as_nobody()):
        pytest.skip("no user namespace may be made here")
    environment = {**os.environ, "HOME": "/", "PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # every user may enter it, unlike pytest's own
        Path(folder).chmod(0o777)
        command = [*AS_UNKNOWN, sys.executable, "-c", UNKNOWN]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.stdout == "12345\n", done.stderr


def _as_nobody() -> UserName:
    return UserName(before_exec=user_name_module._mapping(os.geteuid(), os.getegid(), 65534))


def test_a_user_without_a_name_and_no_way_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_name_module, "_known", lambda user: False)
    monkeypatch.setattr(user_name_module, "_wrapper", lambda: None)
    monkeypatch.setattr(user_name_module, "_starts", lambda program, name: False)
    with pytest.raises(
        ConfigError, match=r"the user id \d+ has no name in /etc/passwd.*install libnss-wrapper, or name a server"
    ):
        user_name(Path("/bin/true"))


def test_nss_wrapper_is_given_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_name_module, "_known", lambda user: False)
    monkeypatch.setattr(user_name_module, "_wrapper", lambda: Path("/usr/lib/libnss_wrapper.so"))
    found = user_name(Path("/bin/true"), tmp_path).environment
    assert found["LD_PRELOAD"] == "/usr/lib/libnss_wrapper.so"
    name, _, user, group, *_ = Path(found["NSS_WRAPPER_PASSWD"]).read_text().strip().split(":")
    assert (name, int(user), int(group)) == ("tailfill", os.geteuid(), os.getegid())
    assert Path(found["NSS_WRAPPER_GROUP"]).read_text() == f"tailfill:x:{os.getegid()}:\n"
    assert user_name(Path("/bin/true")).environment == {}  # a look writes nothing
