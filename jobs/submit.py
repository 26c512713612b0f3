"""Final trainings with the best parameters found so far, as Jobs of the release: what `make submit-final` asks of the control Pod.

Where the search is over they are the study's own trainings: same key, same Job, same result. Else they are extra ones, kept in the store
and not in the report.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.cluster import Release
from jobs.console import PlainConsole
from jobs.opened import Opened
from jobs.plan import Step, make_task, version
from jobs.progress import name_of_search
from jobs.status import StepState, states
from shared.artifacts.manifest import Manifest, new_task
from shared.config.found import with_found
from shared.config.task import FinalConfig, Input, Task, TuneConfig
from shared.errors import ConfigError, InputError
from shared.kube.states import job_state, leaving, pod_reason
from shared.log import Log

POLL_SECONDS = 2.0
SHOWN = ("accuracy", "macro_f1", "rare_macro_f1")
BEST = "best"

log = Log("submit")


@dataclass(frozen=True)
class Wanted:
    """What to train."""

    experiment: str | None = None
    """None for all of the study's."""
    seeds: int | None = None
    """Repetitions; None for the study's own number."""
    parameters: Mapping[str, Any] | None = None
    """By path; None for the best found so far."""


def submit_final(release: Release, opened: Opened, wanted: Wanted, as_json: bool) -> str:
    """Makes the Jobs that are missing, follows their logs, and returns the metrics. Raises InputError where there is nothing to train on,
    and where a training fails."""
    tasks = final_tasks(opened, wanted)
    found = {task.key: manifest for task in tasks if (manifest := opened.artifacts.find("final", task.key))}
    for task in tasks:
        if task.key not in found:
            _make_job(release, task)
    for task in tasks:
        if task.key not in found:
            found[task.key] = _follow(release, opened, task)
    rows = [(task, found[task.key]) for task in tasks]
    return _as_json(rows) if as_json else _table(rows)


def final_tasks(opened: Opened, wanted: Wanted) -> list[Task]:
    """A task an experiment and repetition; raises ConfigError for an unknown experiment, InputError where data or parameters are missing."""
    names = [experiment.name for experiment in opened.study.experiments]
    if wanted.experiment is not None and wanted.experiment not in names:
        raise ConfigError(
            f"--experiment {wanted.experiment}: there is no such experiment; there are {', '.join(names)}"
        )
    rows = states(opened.study, opened.steps, opened.artifacts)
    return [
        task for name in names if wanted.experiment in (None, name) for task in _tasks_of(opened, name, wanted, rows)
    ]


def _tasks_of(opened: Opened, experiment: str, wanted: Wanted, rows: Sequence[StepState]) -> list[Task]:
    # experiments that are equal share their steps: the report knows whose is whose
    roles = opened.steps[-1].needs
    own = [step for role, step in roles.items() if role.startswith(f"final/{experiment}/")]
    committed = {row.step.id: row.manifest for row in rows if row.manifest is not None}
    step = own[0]
    missing = sorted(
        needed.label for role, needed in step.needs.items() if role not in SEARCHES and needed.id not in committed
    )
    if missing:
        raise InputError(
            f"experiment {experiment}: there is nothing to train on yet: {', '.join(missing)} not committed; "
            "`tailfill status` says where the study stands"
        )
    seeds = wanted.seeds or len(own)
    searches = [needed for role, needed in step.needs.items() if role in SEARCHES]
    if wanted.parameters is None and all(needed.id in committed for needed in searches):
        repeats = [_repeat(step, number) for number in range(seeds)]
        return [make_task(opened.study, repeat, committed) for repeat in repeats]
    parameters = wanted.parameters if wanted.parameters is not None else _best_so_far(opened, searches[0], rows)
    inputs = {
        role: Input(stage=m.stage, key=m.key, digest=m.digest)
        for role, needed in step.needs.items()
        if role not in SEARCHES and (m := committed[needed.id])
    }
    return [_task_with(opened, step, experiment, number, parameters, inputs) for number in range(seeds)]


SEARCHES = ("tune", "parameters")
"""Roles of a final training's inputs that bring parameters."""


def _repeat(step: Step, number: int) -> Step:
    return Step(step.stage, step.experiment, step.label, {**step.config, "repeat": number}, step.needs)


def _task_with(
    opened: Opened, step: Step, experiment: str, number: int, parameters: Mapping[str, Any], inputs: dict[str, Input]
) -> Task:
    config = FinalConfig.model_validate_json(json.dumps({**step.config, "repeat": number}))
    arm = with_found(config.arm, parameters)
    dumped = config.model_copy(update={"arm": arm, "pinned": ()}).model_dump(mode="json", by_alias=True)
    study = opened.study
    return new_task(study.name, "final", version("final"), dumped, inputs, study.resources, experiment)


def _best_so_far(opened: Opened, tune: Step, rows: Sequence[StepState]) -> Mapping[str, Any]:
    from shared.search.results import best_so_far

    task = next(row.task for row in rows if row.step.id == tune.id)
    config = TuneConfig.model_validate_json(json.dumps(tune.config))
    best = (
        None
        if task is None
        else best_so_far(opened.database_url, name_of_search(task, opened.artifacts), config.search)
    )
    if best is None:
        raise InputError(
            f"{tune.label}: has no complete trial yet, so there are no best parameters; wait for one, or give some with --params"
        )
    log.info(
        "best parameters so far", search=tune.label, trial=best.number, value=best.value, parameters=best.parameters
    )
    return best.parameters


def _make_job(release: Release, task: Task) -> None:
    name = release.job_name(task)
    job = release.cluster.get("jobs", name)
    if job is not None and job_state(job).phase in (
        "failed",
        "complete",
    ):  # complete, and what it committed was removed since
        release.cluster.delete("jobs", name)
    if release.create_job(task, submitted=True):
        log.info("submitted", job=name)
    else:
        log.info("is there already", job=name)


def _follow(release: Release, opened: Opened, task: Task) -> Manifest:
    """Passes the log on of the task's Pods until its Job has ended; its manifest."""
    name, seen, said = release.job_name(task), set[str](), ""
    while True:
        if manifest := opened.artifacts.find("final", task.key):
            return manifest
        job = release.cluster.get("jobs", name)
        if job is None:
            raise InputError(f"{name}: the Job was removed before it committed; submit again")
        if (state := job_state(job)).phase == "failed":
            raise InputError(f"{name}: failed: {state.reason} {release.failure(job)}")
        for pod in release.cluster.list("pods", f"batch.kubernetes.io/job-name={name}"):
            reason = pod_reason(pod)
            if reason and reason != said:
                log.info(f"{name} waits: {reason}")
                said = reason
            pod_name = pod["metadata"]["name"]
            if pod_name not in seen and (leaving(pod) or pod["status"].get("phase") == "Running"):
                seen.add(pod_name)
                for line in release.cluster.logs(pod_name):
                    _pass_on(f"{task.experiment} {task.config['repeat']}", line)
        time.sleep(POLL_SECONDS)


def _pass_on(training: str, line: str) -> None:
    """A line of a Pod's log, as a person reads it."""
    try:
        PlainConsole().line(training, json.loads(line))
    except (ValueError, TypeError, KeyError):
        print(f"[{training}] {line}", file=sys.stderr, flush=True)  # a traceback, a library's complaint


def _table(rows: Sequence[tuple[Task, Manifest]]) -> str:
    lines = [f"{'experiment':20} {'seed':>4}  " + "  ".join(f"{name:>13}" for name in SHOWN)]
    for task, manifest in rows:
        values = "  ".join(f"{manifest.summary[name]:13.4f}" for name in SHOWN)
        lines.append(f"{task.experiment or '':20} {task.config['repeat']:>4}  {values}")
    for experiment in dict.fromkeys(task.experiment for task, _ in rows):
        own = [manifest.summary for task, manifest in rows if task.experiment == experiment]
        if len(own) > 1:
            means = (_mean(float(summary[name]) for summary in own) for name in SHOWN)
            lines.append(f"{experiment or '':20} mean  " + "  ".join(f"{text:>13}" for text in means))
    return "\n".join(lines)


def _mean(values: Any) -> str:
    numbers = list(values)
    return f"{statistics.mean(numbers):.4f} ± {statistics.stdev(numbers):.4f}"


def _as_json(rows: Sequence[tuple[Task, Manifest]]) -> str:
    return json.dumps(
        [
            {"experiment": task.experiment, "seed": task.config["repeat"], "key": task.key, "metrics": manifest.summary}
            for task, manifest in rows
        ],
        indent=1,
    )
