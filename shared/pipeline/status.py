"""Describes the state of each step of a study, and why a stage would run again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.fingerprint import fingerprint
from shared.artifacts.keys import keyed
from shared.artifacts.manifest import Manifest
from shared.config.resolve import ResolvedStudy
from shared.config.stages import STAGES, Stage, stage_named
from shared.config.task import Task
from shared.log import duration
from shared.pipeline.plan import Step, make_task

RESUME_HINT = "`tailfill run` continues it"
"""Says what a user can do on one machine if nothing moves."""


@dataclass(frozen=True)
class TaskStatus:
    """Says what a machine or a cluster does with a task that is not committed."""

    state: Literal["running", "pending", "failed"]
    detail: str = ""
    """Says why it is pending, or why it failed."""


TaskStatuses = Mapping[str, TaskStatus]
"""Maps the `task_id` of a task to its status."""


def task_id(stage: str, key: str) -> str:
    """Returns the short name of a task, which the name of its file and the labels of its Job contain."""
    return f"{stage}-{key[:16]}"


@dataclass(frozen=True)
class StepState:
    """Holds the state of a step: one line of `tailfill status`."""

    step: Step
    task: Task | None
    """Holds its task; None if something that it needs is not committed, so that its key is not known yet."""
    manifest: Manifest | None
    status: TaskStatus | None = None
    """Says what is done with its task; None if that is nothing, or not known."""

    @property
    def state(self) -> str:
        """Returns `committed`, `running`, `pending`, `failed`, `ready` (everything that it needs is committed) or `waiting`."""
        if self.manifest or not self.task:
            return "committed" if self.manifest else "waiting"
        return self.status.state if self.status else "ready"


def states(
    study: ResolvedStudy, steps: Sequence[Step], artifacts: Artifacts, statuses: TaskStatuses = MappingProxyType({})
) -> list[StepState]:
    """Returns the state of each step of the study's plan; `statuses` are those of tasks that are being worked on."""
    committed: dict[str, Manifest] = {}
    rows = []
    for step in steps:
        task = manifest = None
        if not _missing_warm_start(step) and all(needed.id in committed for needed in step.needs.values()):
            task = make_task(study, step, committed)
            manifest = artifacts.find(task.stage, task.key)
        if manifest is not None:
            committed[step.id] = manifest
        status = statuses.get(task_id(task.stage, task.key)) if task else None
        rows.append(StepState(step, task, manifest, status))
    return rows


def describe(rows: list[StepState], resume_hint: str = RESUME_HINT) -> str:
    """Returns one line per step, a line that says why nothing moves if nothing does, and a line with totals.

    `resume_hint` says what the user can do if nothing moves.
    """
    width = max(len(row.step.label) for row in rows)
    lines = []
    for row in rows:
        detail = ""
        if row.manifest is not None:
            detail = f"{row.manifest.key[:8]}  {row.manifest.run.created}  {duration(row.manifest.run.seconds)} on {row.manifest.run.device}"
        elif row.task is None:
            missing = _missing_labels(row, rows)
            detail = f"for {', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}"
        elif row.status is not None:
            detail = row.status.detail
        lines.append(f"{row.step.label:{width}}  {row.state:9}  {detail}".rstrip())
    if idle := _idle_labels(rows):
        others = " and others" if len(idle) > 3 else ""
        lines.append(f"nothing moves: no process works on {', '.join(idle[:3])}{others}; {resume_hint}")
    done = sum(row.manifest is not None for row in rows)
    work = {
        (r.manifest.stage, r.manifest.key): r.manifest.run.seconds for r in rows if r.manifest
    }  # by key, since several steps may have the same one
    lines.append(f"{done} of {len(rows)} stages committed; {duration(sum(work.values()))} of work")
    return "\n".join(lines)


def _idle_labels(rows: Sequence[StepState]) -> list[str]:
    """Returns the labels of the ready steps if no step is being worked on, without searches, which are described separately."""
    if any(row.status is not None for row in rows if row.manifest is None):
        return []
    return [row.step.label for row in rows if row.state == "ready" and row.step.stage != "tune"]


def as_json(rows: list[StepState], searches: Mapping[str, Any] = MappingProxyType({})) -> list[dict[str, Any]]:
    """Returns the states for a script, as JSON values; `searches` are those that are not committed, by the step's label."""
    return [
        {
            "step": row.step.label,
            "stage": row.step.stage,
            "state": row.state,
            "detail": row.status.detail if row.status and not row.manifest else None,
            "key": row.task.key if row.task else None,
            "digest": row.manifest.digest if row.manifest else None,
            "seconds": row.manifest.run.seconds if row.manifest else None,
            "search": searches.get(row.step.label),
        }
        for row in rows
    ]


def why(study: ResolvedStudy, steps: Sequence[Step], artifacts: Artifacts, stage: str) -> str:
    """Returns a line for each of the stage's steps that says how its key differs from what was committed last.

    Raises ConfigError for an unknown stage.
    """
    name = stage_named(stage, f"--why {stage}")
    rows = states(study, steps, artifacts)
    # a manifest that another step of this study uses is not an earlier version of this step
    in_use = {row.manifest.key for row in rows if row.manifest is not None}
    earlier = [manifest for manifest in artifacts.manifests(name) if manifest.key not in in_use]
    of_stage = [row for row in rows if row.step.stage == name]
    if not of_stage:
        return f"{stage}: is not part of this study"
    return "\n".join(_why_step(row, rows, earlier, name) for row in of_stage)


def _why_step(row: StepState, rows: list[StepState], earlier: list[Manifest], stage: Stage) -> str:
    label = row.step.label
    if row.manifest is not None:
        code = fingerprint(stage)
        changed = (
            ""
            if code == row.manifest.run.code
            else "; its code has changed since, with the same version (the same output)"
        )
        return f"{label}: committed under {row.manifest.key[:8]}{changed}"
    if row.task is None:
        return f"{label}: its key is known once {_joined(_missing_labels(row, rows))} committed"
    last = _last_version(row.task, earlier)
    if last is None:
        return f"{label}: was never committed"
    return f"{label}: differs from {last.key[:8]} ({last.run.created}) in " + "; ".join(
        _differences(row.task, last, stage)
    )


def _last_version(task: Task, earlier: Sequence[Manifest]) -> Manifest | None:
    """Returns the newest manifest of the same repetition: the same experiment's, or else one of an experiment with the same kind of images."""
    config = keyed(task.stage, task.config)
    repeats = [m for m in earlier if m.config.get("repeat") == config.get("repeat")]
    own = [m for m in repeats if m.run.experiment == task.experiment]
    similar = [m for m in repeats if _images(m.config) == _images(config)]
    return max(own or similar, key=lambda m: m.run.created, default=None)


def _images(config: dict[str, Any]) -> Any:
    return config.get("arm", {}).get("images")


def _missing_warm_start(step: Step) -> set[str]:
    """Returns the label of the other study's search that the step starts from, if that search is not committed."""
    warm_start = step.warm_start
    return {f"search {warm_start.name}"} if warm_start is not None and warm_start.result is None else set()


def _missing_labels(row: StepState, rows: list[StepState]) -> list[str]:
    """Returns the labels of the steps that the step needs and that are not committed."""
    left = {r.step.label for r in rows if r.manifest is None}
    return sorted({needed.label for needed in row.step.needs.values()} & left | _missing_warm_start(row.step))


def _joined(labels: Sequence[str]) -> str:
    """Returns the labels with a verb: `a is`, `a and b are`."""
    return f"{labels[0]} is" if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]} are"


def _differences(task: Task, last: Manifest, stage: Stage) -> list[str]:
    differences = []
    if (version := STAGES[stage].version) != last.version:
        differences.append(f"version {last.version} → {version}")
    for role in sorted(task.inputs.keys() | last.inputs.keys()):
        old, new = last.inputs.get(role), task.inputs.get(role)
        if (old and old.digest) != (new and new.digest):
            differences.append(
                f"input {role} {old.digest[:8] if old else 'none'} → {new.digest[:8] if new else 'none'}"
            )
    old_values, new_values = dict(_leaves(last.config)), dict(_leaves(keyed(stage, task.config)))
    for path in sorted(old_values.keys() | new_values.keys()):
        if old_values.get(path) != new_values.get(path):
            differences.append(f"{path} {_short(old_values.get(path))} → {_short(new_values.get(path))}")
    return differences or ["nothing: its result was removed by --rerun"]


def _short(value: Any) -> str:
    """Returns the value as text, with digests shortened to eight digits."""
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1", str(value))


def _leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{path}.{key}".removeprefix("."))]
    return [(path, value)]
