"""Commits the steps of a plan without their work: what a store holds after a study was run, as far as keys and lineage go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from jobs.plan import Step, make_task, version
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.fingerprint import fingerprint
from shared.artifacts.manifest import Manifest
from shared.config.study import Study
from shared.context import Context, StopSignal
from shared.settings import Settings


def no_files(_: Step) -> dict[str, Path]:
    return {}


def commit_steps(
    study: Study,
    steps: Sequence[Step],
    artifacts: Artifacts,
    files: Callable[[Step], dict[str, Path]] = no_files,
) -> dict[str, Manifest]:
    """Commits what is not committed; manifests by step id."""
    committed: dict[str, Manifest] = {}
    for step in steps:
        task = make_task(study, step, committed)
        found = artifacts.find(task.stage, task.key)
        if found is None:
            context = Context(
                task=task,
                artifacts=artifacts,
                settings=Settings.from_environment({}),
                scratch=Path(),
                stop=StopSignal(),
                version=version(step.stage),
                code=lambda stage=step.stage: (fingerprint(stage), {}),  # type: ignore[misc]
            )
            found = context.commit(files(step), {})
        committed[step.id] = found
    return committed
