"""Says how much memory a process may fill, by the machine, its control group and the other processes of the study."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import psutil

CONTROL_GROUPS = Path("/sys/fs/cgroup")
SERVICES = 2**30
"""Counts the bytes that a run takes beside its stages: control, the coordinators, PostgreSQL and the S3 server."""
SPARE = 0.5
"""Sets the share of its free memory that a training may fill with features or pixels; the rest is for its network, batches and lists."""


def machine_memory() -> int:
    """Returns the bytes of memory that all processes of this machine or container may take together.

    They are those of the machine, or fewer if a control group of this process, of version 1 or 2, has a limit
    (docs.kernel.org/admin-guide/cgroup-v2.html, memory.max).
    """
    total = int(psutil.virtual_memory().total)
    return min([total, *_limits(Path("/proc/self/cgroup").read_text(), CONTROL_GROUPS)])


def memory_share(processes: int) -> int:
    """Returns the bytes of memory that each of so many stage processes of `tailfill run` may take, beside the run and its services."""
    total = machine_memory()
    return max(total // 2, total - SERVICES) // processes


def spare_memory(share: int | None, used: float | None = None) -> float:
    """Returns the bytes that a process may fill with what it could also compute again; `share` is what it may take, None all that there is.

    `used` is what it takes already; if it is None, it is what this process takes, without mapped files.
    """
    if used is None:
        own = psutil.Process().memory_info()
        used = own.rss - own.shared
    return SPARE * max(0.0, (machine_memory() if share is None else share) - used)


def _limits(groups: str, mounted: Path) -> list[int]:
    """Returns the limits in bytes of the groups that `/proc/self/cgroup` lists, and of those around them.

    Inside a container the listed path may be that of the host; then the limit is that of the mounted root.
    """
    limits = []
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root, file = (mounted, "memory.max") if not controllers else (mounted / "memory", "memory.limit_in_bytes")
        inside = PurePosixPath(path.lstrip("/"))
        for group in (inside, *inside.parents):
            limit = root / group / file
            if limit.is_file() and (text := limit.read_text().strip()).isdigit():
                limits.append(int(text))
    return limits
