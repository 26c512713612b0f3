"""Says how busy other programs keep the machine, which a load average cannot: it counts this program's work of the last minute too."""

from __future__ import annotations

import os

import psutil

SECONDS = 0.5
"""Sets how long the machine is watched."""


def busy_cores() -> float:
    """Returns how many of the cores that this process may use are in use by others, on average over half a second in which it waits."""
    shares = psutil.cpu_percent(SECONDS, percpu=True)
    return sum(shares[core] for core in os.sched_getaffinity(0) if core < len(shares)) / 100
