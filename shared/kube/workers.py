"""Decides how many tuning workers a release has: as many as users allow and its searches have trials for, each an ordinary Job.

Users scale a Deployment that is paused and therefore has no Pods; its `replicas` are the number that they allow.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.kube.api import Object
from shared.kube.manifests import NUMBER
from shared.kube.states import at_work, failed_at, job_state

IDLE_SECONDS = 10.0  # that a worker may have no trial: the next step of a sequential search begins within two
FAILED_SECONDS = (
    300.0  # before a failed worker is replaced; Kubernetes waits as long at most before it restarts a container
)


@dataclass
class Decision:
    """Says what to do with the workers' Jobs."""

    create: list[int]
    """Lists the numbers of the workers to create."""
    idle: list[str]
    """Lists the Jobs for which there is no trial now, though there may soon be one."""
    over: list[str]
    """Lists the Jobs that are more than users allow."""


def decide(
    jobs: Sequence[Object], allowed: int, trials: int | None, busy: Collection[str], now: float | None = None
) -> Decision:
    """Decides what to do with the workers' Jobs.

    `trials` counts the trials that workers could run now or are running, and is None if it is not known: then only Jobs that are
    not allowed end. `busy` names the Jobs that hold a trial, which end last. `now` is in seconds since 1970, by default the present time.
    """
    alive = [job for job in jobs if not job_state(job).ended]
    # those that have just failed keep their place: what failed them would fail the next one as well
    resting = [job for job in jobs if _rests(job, time.time() if now is None else now)]
    by_use = sorted(alive, key=lambda job: (_name(job) in busy, at_work(job), -_number(job)))
    over = [_name(job) for job in by_use[: max(len(alive) - allowed, 0)]]
    if trials is None:
        return Decision([], [], over)
    left = by_use[len(over) :]
    idle = [_name(job) for job in left if _name(job) not in busy][: max(len(left) - trials, 0)]
    taken = {_number(job) for job in [*alive, *resting]}
    free = (number for number in itertools.count() if number not in taken)
    wanted = min(allowed - len(resting), trials) - len(alive)
    return Decision(list(itertools.islice(free, max(wanted, 0))), idle, over)


def _name(job: Object) -> str:
    return str(job["metadata"]["name"])


def _number(job: Object) -> int:
    return int(job["metadata"]["labels"][NUMBER])


def _rests(job: Object, now: float) -> bool:
    return (
        job_state(job).phase == "failed" and now < datetime.fromisoformat(failed_at(job)).timestamp() + FAILED_SECONDS
    )


class IdleSince:
    """Remembers since when Jobs have been idle without interruption."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def too_long(self, idle: Sequence[str], now: float) -> list[str]:
        """Returns those of the idle Jobs that have been idle for IDLE_SECONDS; `now` is the time of a monotonic clock."""
        self._since = {name: self._since.get(name, now) for name in idle}
        return [name for name, since in self._since.items() if now - since >= IDLE_SECONDS]
