"""Where a study stands, from what is committed; and why a stage would run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.plan import Step, make_task, version
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.fingerprint import fingerprint
from shared.artifacts.manifest import Manifest
from shared.config.study import Study
from shared.config.task import STAGES, Stage, Task, keyed
from shared.errors import ConfigError
from shared.log import duration


@dataclass(frozen=True)
class StepState:
    """One row of the status."""

    step: Step
    task: Task | None
    """None while something that it needs is not committed: its key is not known yet."""
    manifest: Manifest | None

    @property
    def state(self) -> str:
        """`committed`, `ready` (nothing is missing but the work) or `waiting`."""
        return "committed" if self.manifest else "ready" if self.task else "waiting"


def states(study: Study, steps: Sequence[Step], artifacts: Artifacts) -> list[StepState]:
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
        rows.append(StepState(step, task, manifest))
    return rows


def describe(rows: list[StepState]) -> str:
    """A line a step, and a line in all."""
    width = max(len(row.step.label) for row in rows)
    lines = []
    for row in rows:
        detail = ""
        if row.manifest is not None:
            detail = f"{row.manifest.key[:8]}  {row.manifest.run.created}  {duration(row.manifest.run.seconds)} on {row.manifest.run.device}"
        elif row.task is None:
            waiting = {r.step.label for r in rows if r.manifest is None}
            missing = sorted({n.label for n in row.step.needs.values()} & waiting | _absent(row.step))
            detail = f"for {', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}"
        lines.append(f"{row.step.label:{width}}  {row.state:9}  {detail}".rstrip())
    done = sum(row.manifest is not None for row in rows)
    lines.append(
        f"{done} of {len(rows)} stages committed; {duration(sum(r.manifest.run.seconds for r in rows if r.manifest))} of work"
    )
    return "\n".join(lines)


def as_json(rows: list[StepState]) -> list[dict[str, Any]]:
    """The same for a script."""
    return [
        {
            "step": row.step.label,
            "stage": row.step.stage,
            "state": row.state,
            "key": row.task.key if row.task else None,
            "digest": row.manifest.digest if row.manifest else None,
            "seconds": row.manifest.run.seconds if row.manifest else None,
        }
        for row in rows
    ]


def why(study: Study, steps: Sequence[Step], artifacts: Artifacts, stage: str) -> str:
    """Which part of each of the stage's keys differs from what was committed last; raises ConfigError for an unknown stage."""
    known = next((s for s in STAGES if s == stage), None)
    if known is None:
        raise ConfigError(f"--why {stage}: there is no such stage; there are {', '.join(STAGES)}")
    rows = [row for row in states(study, steps, artifacts) if row.step.stage == known]
    if not rows:
        return f"{stage}: is no part of this study"
    earlier = artifacts.manifests(known)
    return "\n".join(_why_step(row, earlier, known) for row in rows)


def _why_step(row: StepState, earlier: list[Manifest], stage: Stage) -> str:
    label = row.step.label
    if row.manifest is not None:
        code = fingerprint(stage)
        changed = (
            ""
            if code == row.manifest.run.code
            else "; its code has changed since, with the same VERSION (the same output)"
        )
        return f"{label}: committed under {row.manifest.key[:8]}{changed}"
    if row.task is None:
        return f"{label}: its key is not known before {', '.join(sorted({n.label for n in row.step.needs.values()} | _absent(row.step)))} are committed"
    same = [m for m in earlier if _place(m.config) == _place(row.task.config)]
    if not same:
        return f"{label}: was never committed"
    last = max(same, key=lambda m: m.run.created)
    return f"{label}: differs from {last.key[:8]} ({last.run.created}) in " + "; ".join(
        _differences(row.task, last, stage)
    )


def _absent(step: Step) -> set[str]:
    """The search of another study that it begins from, while there is none."""
    return {f"search {step.earlier.name}"} if step.earlier is not None and step.earlier.result is None else set()


def _place(config: dict[str, Any]) -> tuple[Any, Any]:
    """What makes two results comparable: the same repetition of the same kind of arm."""
    return config.get("repeat"), config.get("arm", {}).get("images")


def _differences(task: Task, last: Manifest, stage: Stage) -> list[str]:
    found = []
    if version(stage) != last.version:
        found.append(f"VERSION {last.version} → {version(stage)}")
    for role in sorted(task.inputs.keys() | last.inputs.keys()):
        old, new = last.inputs.get(role), task.inputs.get(role)
        if (old and old.digest) != (new and new.digest):
            found.append(f"input {role} {old.digest[:8] if old else 'none'} → {new.digest[:8] if new else 'none'}")
    old_values, new_values = dict(_leaves(last.config)), dict(_leaves(keyed(stage, task.config)))
    for path in sorted(old_values.keys() | new_values.keys()):
        if old_values.get(path) != new_values.get(path):
            found.append(f"{path} {old_values.get(path)} → {new_values.get(path)}")
    return found or ["nothing: it was forgotten (--rerun)"]


def _leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{path}.{key}".removeprefix("."))]
    return [(path, value)]
