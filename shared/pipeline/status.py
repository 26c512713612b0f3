"""Where a study stands, from what is committed; and why a stage would run again."""

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

GO_ON = "`tailfill run` goes on with it"
"""What a person can do on one machine."""


@dataclass(frozen=True)
class Doing:
    """What becomes of a task that is not committed."""

    state: Literal["running", "pending", "failed"]
    detail: str = ""
    """Why it is pending, or what it failed of."""


Doings = Mapping[str, Doing]
"""By `doing_key`."""


def doing_key(stage: str, key: str) -> str:
    """As much of a task as its file's name, or its Job's labels, tell."""
    return f"{stage}-{key[:16]}"


@dataclass(frozen=True)
class StepState:
    """One row of the status."""

    step: Step
    task: Task | None
    """None while something that it needs is not committed: its key is not known yet."""
    manifest: Manifest | None
    doing: Doing | None = None

    @property
    def state(self) -> str:
        """`committed`, `running`, `pending`, `failed`, `ready` (nothing is missing but the work) or `waiting`."""
        if self.manifest or not self.task:
            return "committed" if self.manifest else "waiting"
        return self.doing.state if self.doing else "ready"


def states(
    study: ResolvedStudy, steps: Sequence[Step], artifacts: Artifacts, doings: Doings = MappingProxyType({})
) -> list[StepState]:
    """The state of each step of the study's plan."""
    committed: dict[str, Manifest] = {}
    rows = []
    for step in steps:
        task = manifest = None
        if not _absent(step) and all(needed.id in committed for needed in step.needs.values()):
            task = make_task(study, step, committed)
            manifest = artifacts.find(task.stage, task.key)
        if manifest is not None:
            committed[step.id] = manifest
        doing = doings.get(doing_key(task.stage, task.key)) if task else None
        rows.append(StepState(step, task, manifest, doing))
    return rows


def describe(rows: list[StepState], go_on: str = GO_ON) -> str:
    """A line a step, one that says why nothing moves when nothing does, and a line in all; `go_on` is the remedy of the place that asks."""
    width = max(len(row.step.label) for row in rows)
    lines = []
    for row in rows:
        detail = ""
        if row.manifest is not None:
            detail = f"{row.manifest.key[:8]}  {row.manifest.run.created}  {duration(row.manifest.run.seconds)} on {row.manifest.run.device}"
        elif row.task is None:
            missing = _missing(row, rows)
            detail = f"for {', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}"
        elif row.doing is not None:
            detail = row.doing.detail
        lines.append(f"{row.step.label:{width}}  {row.state:9}  {detail}".rstrip())
    if idle := _idle(rows):
        lines.append(
            f"nothing moves: no process works on {', '.join(idle[:3])}{' and others' if len(idle) > 3 else ''}; {go_on}"
        )
    done = sum(row.manifest is not None for row in rows)
    work = {
        (r.manifest.stage, r.manifest.key): r.manifest.run.seconds for r in rows if r.manifest
    }  # steps may share one
    lines.append(f"{done} of {len(rows)} stages committed; {duration(sum(work.values()))} of work")
    return "\n".join(lines)


def _idle(rows: Sequence[StepState]) -> list[str]:
    """Labels of the steps that could be worked on, where nobody works on any: but for searches, which say so themselves."""
    if any(row.doing is not None for row in rows if row.manifest is None):
        return []
    return [row.step.label for row in rows if row.state == "ready" and row.step.stage != "tune"]


def as_json(rows: list[StepState], searches: Mapping[str, Any] = MappingProxyType({})) -> list[dict[str, Any]]:
    """The same for a script; `searches` are those under way, by the step's label."""
    return [
        {
            "step": row.step.label,
            "stage": row.step.stage,
            "state": row.state,
            "detail": row.doing.detail if row.doing and not row.manifest else None,
            "key": row.task.key if row.task else None,
            "digest": row.manifest.digest if row.manifest else None,
            "seconds": row.manifest.run.seconds if row.manifest else None,
            "search": searches.get(row.step.label),
        }
        for row in rows
    ]


def why(study: ResolvedStudy, steps: Sequence[Step], artifacts: Artifacts, stage: str) -> str:
    """Which part of each of the stage's keys differs from what was committed last; raises ConfigError for an unknown stage."""
    known = stage_named(stage, f"--why {stage}")
    rows = states(study, steps, artifacts)
    # what stands for another step of this very study is no earlier version of this one
    taken = {row.manifest.key for row in rows if row.manifest is not None}
    earlier = [manifest for manifest in artifacts.manifests(known) if manifest.key not in taken]
    asked = [row for row in rows if row.step.stage == known]
    if not asked:
        return f"{stage}: is no part of this study"
    return "\n".join(_why_step(row, rows, earlier, known) for row in asked)


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
        return f"{label}: its key is known once {_named(_missing(row, rows))} committed"
    last = _last_version(row.task, earlier)
    if last is None:
        return f"{label}: was never committed"
    return f"{label}: differs from {last.key[:8]} ({last.run.created}) in " + "; ".join(
        _differences(row.task, last, stage)
    )


def _last_version(task: Task, earlier: Sequence[Manifest]) -> Manifest | None:
    """The newest of the same repetition: of the same experiment, or, where that has none, of one with the same kind of images."""
    config = keyed(task.stage, task.config)
    repeats = [m for m in earlier if m.config.get("repeat") == config.get("repeat")]
    own = [m for m in repeats if m.run.experiment == task.experiment]
    alike = [m for m in repeats if _images(m.config) == _images(config)]
    return max(own or alike, key=lambda m: m.run.created, default=None)


def _images(config: dict[str, Any]) -> Any:
    return config.get("arm", {}).get("images")


def _absent(step: Step) -> set[str]:
    """The search of another study that it begins from, while there is none."""
    return {f"search {step.earlier.name}"} if step.earlier is not None and step.earlier.result is None else set()


def _missing(row: StepState, rows: list[StepState]) -> list[str]:
    """Labels of the steps that it needs and that are not committed."""
    left = {r.step.label for r in rows if r.manifest is None}
    return sorted({needed.label for needed in row.step.needs.values()} & left | _absent(row.step))


def _named(labels: Sequence[str]) -> str:
    """`a is`, `a and b are`."""
    return f"{labels[0]} is" if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]} are"


def _differences(task: Task, last: Manifest, stage: Stage) -> list[str]:
    found = []
    if (version := STAGES[stage].version) != last.version:
        found.append(f"version {last.version} → {version}")
    for role in sorted(task.inputs.keys() | last.inputs.keys()):
        old, new = last.inputs.get(role), task.inputs.get(role)
        if (old and old.digest) != (new and new.digest):
            found.append(f"input {role} {old.digest[:8] if old else 'none'} → {new.digest[:8] if new else 'none'}")
    old_values, new_values = dict(_leaves(last.config)), dict(_leaves(keyed(stage, task.config)))
    for path in sorted(old_values.keys() | new_values.keys()):
        if old_values.get(path) != new_values.get(path):
            found.append(f"{path} {_shown(old_values.get(path))} → {_shown(new_values.get(path))}")
    return found or ["nothing: it was forgotten (--rerun)"]


def _shown(value: Any) -> str:
    """Digests by their first letters."""
    return re.sub(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", r"\1", str(value))


def _leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{path}.{key}".removeprefix("."))]
    return [(path, value)]
