"""Gives PostgreSQL's programs the name of their user if the system knows none, as in a container started with `docker run --user 12345`.

initdb and single-user mode look up the name that belongs to their user id, and end if there is none; the server itself does not.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import ConfigError

CLONE_NEWUSER = 0x10000000  # of linux/sched.h
WRAPPERS = ("/usr/lib/libnss_wrapper.so", "/usr/lib64/libnss_wrapper.so", "/usr/local/lib/libnss_wrapper.so")
NAME = "tailfill"

_libc = ctypes.CDLL(None, use_errno=True)  # loaded before any fork


@dataclass(frozen=True)
class UserName:
    """Says how to start a program so that the lookup of its user finds a name."""

    environment: Mapping[str, str] = field(default_factory=dict)
    """Holds environment variables that the program needs in addition."""
    before_exec: Callable[[], None] = lambda: None
    """Runs in the child between fork and exec."""


def user_name(program: Path, folder: Path | None = None) -> UserName:
    """Returns how to start `program` as the user of this process, so that PostgreSQL finds a name for it.

    If the system has none, the library nss_wrapper provides one from files in `folder`, as in PostgreSQL's own container image; without that
    library a user namespace does, in which the user appears as another who has a name. Without `folder` no file is written. Raises
    ConfigError with the remedies if neither is to be had.
    """
    user = os.geteuid()
    if _known(user):
        return UserName()
    if (library := _wrapper()) is not None:
        return UserName({} if folder is None else _wrapped(library, folder, user))
    named = next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0), None)  # PostgreSQL refuses to be root
    if named is not None:
        mapped = UserName(before_exec=_mapping(user, os.getegid(), named))
        if _starts(program, mapped):
            return mapped
    raise ConfigError(
        f"PostgreSQL: the user id {user} has no name in /etc/passwd, without which its data folder cannot be created; start the container as a "
        "user that has one (or mount an /etc/passwd with a line for it), install libnss-wrapper, or name a server in DATABASE_URL"
    )


def _known(user: int) -> bool:
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True


def _wrapper() -> Path | None:
    candidates = [*map(Path, WRAPPERS), *Path("/usr/lib").glob("*-linux-gnu/libnss_wrapper.so")]
    return next((path for path in candidates if path.is_file()), None)


def _wrapped(library: Path, folder: Path, user: int) -> dict[str, str]:
    """Writes the two files that nss_wrapper reads, and returns its variables."""
    passwd, group = folder / "passwd", folder / "group"
    passwd.write_text(f"{NAME}:x:{user}:{os.getegid()}::/:/bin/false\n")
    group.write_text(f"{NAME}:x:{os.getegid()}:\n")
    return {
        "LD_PRELOAD": str(library),
        "NSS_WRAPPER_PASSWD": str(passwd.resolve()),
        "NSS_WRAPPER_GROUP": str(group.resolve()),
    }


def _mapping(user: int, group: int, named: int) -> Callable[[], None]:
    """Returns a function that enters a user namespace in which `user` appears as `named`; see user_namespaces(7)."""

    def enter() -> None:
        if _libc.unshare(CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{named} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)

    return enter


def _starts(program: Path, name: UserName) -> bool:
    try:
        return (
            subprocess.run(
                [program, "--version"], cwd="/", env={}, capture_output=True, preexec_fn=name.before_exec
            ).returncode
            == 0
        )
    except (OSError, subprocess.SubprocessError):  # namespaces are forbidden, as by Docker's default rules
        return False
