"""Runs server processes that end with this process, also if it is killed."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from shared.errors import ConfigError, UnavailableError
from shared.parent_death import die_with_parent
from shared.services.capabilities import keep_through_setuid, raise_read_everything

STOP_SECONDS = 1.5  # a server that has not ended by then is killed; neither loses data by that
LEFTOVER_SECONDS = 10.0
TAIL_LINES = 5


@dataclass(frozen=True)
class User:
    """Identifies the user as which a server runs if we are root."""

    uid: int
    gid: int


def unprivileged_user() -> User | None:
    """Returns `nobody` if we are root, as which PostgreSQL refuses to run; None otherwise."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise ConfigError(
            "PostgreSQL: does not run as root, and this system has no user nobody for it; start the command as another user, or name a server in "
            "DATABASE_URL"
        ) from None
    return User(entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True)
class Server:
    """Holds a running server and the path of its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    clean_up: Callable[[], None] = lambda: None
    """Removes what the server leaves outside its folder; called when it has ended."""

    def wait_ready(self, ready: Callable[[], bool], seconds: float) -> None:
        """Waits until `ready()` is true; raises UnavailableError with the end of the log if the server ends or `seconds` pass."""
        end = time.monotonic() + seconds
        while not ready():
            if (code := self.process.poll()) is not None:
                raise UnavailableError(f"{self.name}: ended with {code} as it started; {tail(self.log)}")
            if time.monotonic() > end:
                raise UnavailableError(f"{self.name}: not ready after {seconds:g} s; {tail(self.log)}")
            time.sleep(0.05)

    def ask_to_stop(self) -> None:
        """Sends SIGINT, which asks for a fast, orderly stop."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ends the server and what it started, by SIGKILL if an orderly stop takes longer than `seconds`."""
        self.ask_to_stop()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.clean_up()


def start(
    name: str,
    command: Sequence[str | Path],
    folder: Path,
    log: Path,
    environment: Mapping[str, str],
    death_signal: signal.Signals,
    user: User | None = None,
    clean_up: Callable[[], None] = lambda: None,
) -> Server:
    """Starts a server with `folder` as its current directory; the kernel sends it `death_signal` when this process dies.

    Only its user can use the files and sockets that it makes. It does not get the terminal's Ctrl-C; the caller stops it. Raises
    RuntimeError outside the main thread, as the kernel watches the *thread* that starts it.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            f"{name}: must be started from the main thread, or it would end with the thread that started it"
        )
    parent = os.getpid()

    def before_exec() -> None:
        if user is not None:
            become(user)
        die_with_parent(parent, death_signal)

    with os.fdopen(os.open(log, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600), "ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder if user is None else "/",
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
            preexec_fn=before_exec,
        )
    return Server(name, process, log, clean_up)


def become(user: User) -> None:
    """Changes from root to `user` between fork and exec, but keeps the right to enter folders.

    The work directory or the environment may be below a folder that only root may enter (most often /root itself). Of root's rights only the
    one to read whatever the permissions stays, as an ambient capability, which the kernel keeps through exec.
    """
    keep_through_setuid()
    os.setgroups([])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    raise_read_everything()


def free_ports(count: int) -> list[int]:
    """Returns ports of the loopback interface on which nobody listens now; another process may take one, so callers retry."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def end_leftovers(folder: Path) -> None:
    """Kills the servers that an earlier, killed run left running in `folder`; the caller holds the lock of the work directory."""
    end = time.monotonic() + LEFTOVER_SECONDS
    while left := [process for process in psutil.process_iter() if _works_in(process, folder)]:
        if time.monotonic() > end:
            raise UnavailableError(
                f"{folder}: process {left[0].pid} of an earlier run does not end; end it and run again"
            )
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)


def tail(log: Path) -> str:
    """Returns the last lines of a log, as the end of a one-line message."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    last = " | ".join(line.strip() for line in lines[-TAIL_LINES:])
    return f"{log} ends with: {last}" if last else f"{log} is empty"


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.name() in ("postgres", "weed") and Path(process.cwd()) == folder
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
