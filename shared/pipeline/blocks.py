"""Deals the tasks of a stage to Jobs whose process runs several of them, one after the other, with one start-up."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shared.config.stages import STAGES
from shared.config.task import Task
from shared.kube.manifests import MOST_TASKS

BLOCK_SECONDS = 300.0
"""Sets how many seconds of work a Job takes on. A Pod whose image is on the node needs about 15 s to start and import, a twentieth of that."""
TRAININGS_WITHOUT_PACE = 4
"""Sets how many trainings a Job takes on if no search tells how long one takes."""


def deal(tasks: Sequence[Task], most: int | None, active: int = 0) -> list[list[Task]]:
    """Returns blocks of tasks of one stage, each for a Job; tasks that are left out wait until fewer Jobs are active.

    A block has as many tasks as are expected to take BLOCK_SECONDS: short trainings share a start-up, and long ones keep
    a Job, with its retries, of their own. If at most `most` Jobs may be active, of which `active` are, it has no more than its share among
    `most` Jobs, so that none has all of them because it came first. A stage without blocks gets one task per Job.
    """
    free = len(tasks) if most is None else max(most - active, 0)
    if not tasks or not free:
        return []
    if not STAGES[tasks[0].stage].blocks:
        return [[task] for task in tasks[:free]]
    unknown = BLOCK_SECONDS / TRAININGS_WITHOUT_PACE
    seconds = sum(unknown if task.expected_seconds is None else task.expected_seconds for task in tasks)
    size = max(int(BLOCK_SECONDS * len(tasks) / seconds), 1)
    if most is None:
        count, dealt = math.ceil(len(tasks) / size), list(tasks)
    else:
        count = min(free, len(tasks))
        dealt = list(tasks[: count * min(size, math.ceil(len(tasks) / most))])
    blocks = [_split(dealt[i::count]) for i in range(count)]
    return [part for parts in blocks for part in (parts if most is None else parts[:1])]


def _split(block: Sequence[Task]) -> list[list[Task]]:
    """Returns the block in parts of at most MOST_TASKS."""
    return [list(block[first : first + MOST_TASKS]) for first in range(0, len(block), MOST_TASKS)]
