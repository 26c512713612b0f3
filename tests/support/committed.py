"""Commits the steps of a plan without running them. The store then has the keys and the lineage of a study that was run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.fingerprint import fingerprint
from shared.artifacts.manifest import Manifest
from shared.config.resolve import ResolvedStudy
from shared.config.stages import TuneConfig
from shared.config.task import Task
from shared.context import Context
from shared.pipeline.plan import Step, make_task
from shared.settings import Settings
from shared.stop import StopSignal


def no_files(_: Step) -> dict[str, Path]:
    return {}


def commit_steps(
    study: ResolvedStudy,
    steps: Sequence[Step],
    artifacts: Artifacts,
    files: Callable[[Step], dict[str, Path]] = no_files,
) -> dict[str, Manifest]:
    """Commits the steps that are not committed, and returns all manifests by step id."""
    committed: dict[str, Manifest] = {}
    for step in steps:
        task = make_task(study, step, committed)
        found = artifacts.find(task.stage, task.key)
        if found is None:
            found = commit_task(task, artifacts, files(step))
        committed[step.id] = found
    return committed


def commit_task(task: Task, artifacts: Artifacts, files: Mapping[str, Path] = MappingProxyType({})) -> Manifest:
    """Commits one task."""
    context = Context(
        task=task,
        artifacts=artifacts,
        settings=Settings.from_environment({}),
        scratch=Path(),
        stop=StopSignal(),
        code=lambda: (fingerprint(task.stage), {}),
    )
    return context.commit(files, _summary(task))


def _summary(task: Task) -> dict[str, Any]:
    """The summary of a search that found no parameters; nothing of another stage's is read."""
    if not isinstance(task.config, TuneConfig):
        return {}
    repetitions = task.config.repetitions
    return {"parameters": {}, "repetitions": [{}] * (repetitions.count if repetitions else 0)}
