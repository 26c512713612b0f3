"""Deals the tasks of a stage to Jobs whose process runs several of them, one after the other, with one start-up."""

from __future__ import annotations

import math
from collections.abc import Sequence

from shared.artifacts.artifacts import Artifacts
from shared.config.stages import STAGES, FinalConfig
from shared.config.task import Task, block_json
from shared.kube.manifests import LARGEST_TASK

BLOCK_SECONDS = (
    300.0  # of work in a Job; pulling nothing, a Pod starts and imports for about 15 s, which is a twentieth of it
)
TRAININGS_WITHOUT_PACE = 4  # in a Job if there was no search by whose trials to tell how long a training takes


def deal(tasks: Sequence[Task], artifacts: Artifacts, most: int | None, active: int = 0) -> list[list[Task]]:
    """Returns blocks of tasks of one stage, each for a Job; tasks that are left out wait until fewer Jobs are active.

    A block has as many tasks as take BLOCK_SECONDS by the pace of the search's trials: short trainings share a start-up, and long ones keep
    a Job, with its retries, of their own. If at most `most` Jobs may be active, of which `active` are, it has no more than its share among
    `most` Jobs, so that none has all of them because it came first. A stage without blocks gets one task per Job.
    """
    free = len(tasks) if most is None else max(most - active, 0)
    if not tasks or not free:
        return []
    if not STAGES[tasks[0].stage].blocks:
        return [[task] for task in tasks[:free]]
    size = max(int(BLOCK_SECONDS * len(tasks) / _seconds(tasks, artifacts)), 1)
    if most is None:
        count, dealt = math.ceil(len(tasks) / size), list(tasks)
    else:
        count = min(free, len(tasks))
        dealt = list(tasks[: count * min(size, math.ceil(len(tasks) / most))])
    blocks = [_split(dealt[i::count]) for i in range(count)]
    return [part for parts in blocks for part in (parts if most is None else parts[:1])]


def _split(block: Sequence[Task]) -> list[list[Task]]:
    """Returns the block in parts that a Pod can carry."""
    parts: list[list[Task]] = [[]]
    for task in block:
        if parts[-1] and len(block_json([*parts[-1], task]).encode()) > LARGEST_TASK:
            parts.append([])
        parts[-1].append(task)
    return parts


def _seconds(tasks: Sequence[Task], artifacts: Artifacts) -> float:
    """Returns about how many seconds the tasks take together."""
    paces = dict[str, float | None]()
    total = 0.0
    for task in tasks:
        source = task.inputs.get("tune") or task.inputs.get("parameters")
        key = source.key if source else ""
        if key not in paces:
            paces[key] = _epoch_seconds(task, artifacts)
        pace, config = paces[key], task.config
        assert isinstance(config, FinalConfig)
        epochs = config.final.epochs + config.arm.training.refit_epochs
        total += BLOCK_SECONDS / TRAININGS_WITHOUT_PACE if pace is None else pace * epochs
    return total


def _epoch_seconds(task: Task, artifacts: Artifacts) -> float | None:
    """Returns how long an epoch of a trial took on average in the search that gives the task its parameters, or None if there was none."""
    source = task.inputs.get("tune") or task.inputs.get("parameters")
    if source is None:
        return None
    search = artifacts.open(source)
    spent, trials = search.run.device_seconds + (search.run.cpu_seconds or 0.0), search.summary.get("trials")
    return spent / trials / search.config["search"]["epochs"] if trials and spent else None
