"""Server processes that end with us, however we end."""

from __future__ import annotations

import contextlib
import ctypes
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

from shared.errors import UnavailableError

PR_SET_PDEATHSIG = 1
STOP_SECONDS = 1.5  # a server that has not ended by itself by then is killed; both keep their data through that
LEFTOVER_SECONDS = 10.0
TAIL_LINES = 5

_libc = ctypes.CDLL(None, use_errno=True)  # loaded before any fork


@dataclass(frozen=True)
class User:
    """Whom a server runs as when we are root."""

    uid: int
    gid: int


def unprivileged_user() -> User | None:
    """`nobody` where we are root, whom PostgreSQL refuses to run as; None elsewhere."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return User(entry.pw_uid, entry.pw_gid)


@dataclass(frozen=True)
class Server:
    """A running server, and where it writes what it has to say."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    clean_up: Callable[[], None] = lambda: None
    """Removes what it would leave outside its folder; called when it has ended."""

    def wait_ready(self, ready: Callable[[], bool], seconds: float) -> None:
        """Returns when `ready()` is true; raises UnavailableError with the end of its log where it ends or takes longer."""
        end = time.monotonic() + seconds
        while not ready():
            if (code := self.process.poll()) is not None:
                raise UnavailableError(f"{self.name}: ended with {code} as it started; {tail(self.log)}")
            if time.monotonic() > end:
                raise UnavailableError(f"{self.name}: not ready after {seconds:g} s; {tail(self.log)}")
            time.sleep(0.05)

    def ask_to_stop(self) -> None:
        """Sends SIGINT: a fast, orderly stop."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ends it and what it started, in order where it can in that time, by SIGKILL else."""
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
    """Starts a server with `folder` as its current directory; the kernel sends it `death_signal` when we die.

    Files and sockets that it makes are its user's only.
    The kernel watches the *thread* that starts it, so only the main thread may. It does not get the terminal's Ctrl-C: we stop it ourselves.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            f"{name}: must be started from the main thread, or it would end with the thread that started it"
        )
    parent = os.getpid()

    def before_exec() -> None:
        if user is not None:
            become(user)
        _libc.prctl(PR_SET_PDEATHSIG, death_signal.value, 0, 0, 0)
        if os.getppid() != parent:  # we died between fork and prctl
            os._exit(1)

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
    """Called between fork and exec: gives up root for `user`, but keeps the right to pass through folders.

    The work directory or the environment may lie below a folder that only root may enter (/root itself, most often). Of root's
    rights only the one to read past permissions stays, as an ambient capability, which the kernel hands on through exec.
    """
    from shared.services import capabilities

    capabilities.keep_through_setuid()
    os.setgroups([])
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    capabilities.raise_read_everything()


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on now; another may be faster, so a start with them is retried."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def end_leftovers(folder: Path) -> None:
    """Kills what an earlier, killed run left working in `folder`; the caller holds the lock of the work directory."""
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
    """The last lines of a log, as the end of a one-line message."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    last = " | ".join(line.strip() for line in lines[-TAIL_LINES:])
    return f"{log} ends with: {last}" if last else f"{log} is empty"


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.name() in ("postgres", "weed") and Path(process.cwd()) == folder
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
