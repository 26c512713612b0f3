"""Runs final trainings with the best parameters found so far, as Jobs of the release, for `make submit-final`.

If the search is complete, these are the study's own trainings, with the same key, Job and result. Otherwise they are additional ones, which
are kept in the store and are not in the report.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shared.artifacts.keys import new_task
from shared.artifacts.manifest import Manifest
from shared.config.apply_parameters import apply_parameters, inherited
from shared.config.stages import FinalConfig, TuneConfig
from shared.config.task import Input, Task
from shared.errors import ConfigError, InputError, UnavailableError
from shared.kube.api import ClusterError
from shared.kube.manifests import parallelism
from shared.kube.release import Release
from shared.kube.states import job_reason, job_state
from shared.log import Log
from shared.metrics.table import METRICS
from shared.pipeline.console import PlainConsole
from shared.pipeline.plan import Step, make_task
from shared.pipeline.search_status import name_of_search
from shared.pipeline.session import Session
from shared.pipeline.status import StepState, states
from shared.search.best_parameters import SEARCHES

POLL_SECONDS = 2.0

log = Log("submit")


@dataclass(frozen=True)
class SubmitRequest:
    """Says which final trainings to run."""

    experiment: str | None = None
    """The name of the experiment; None for all experiments."""
    seeds: int | None = None
    """The number of repetitions per experiment; None for the study's `final.seeds`."""
    parameters: Mapping[str, Any] | None = None
    """The parameters by path; None for the best found so far."""


def submit_final(release: Release, session: Session, request: SubmitRequest, as_json: bool) -> str:
    """Creates the Jobs that are missing, follows their logs, and returns the metrics as a table or as JSON.

    Raises ConfigError for an unknown experiment, and InputError if data or parameters are missing or a training fails.
    """
    tasks = final_tasks(session, request)
    manifests = {task.key: manifest for task in tasks if (manifest := session.artifacts.find("final", task.key))}
    left = [task for task in tasks if task.key not in manifests]
    at_once = parallelism(release.manifests["final"]) or len(left)
    created = 0
    for position, task in enumerate(left):
        for ahead in left[created : position + at_once]:
            _create_job(release, ahead)
        created = max(created, position + at_once)
        manifests[task.key] = _follow(release, session, task)
    rows = [(task, manifests[task.key]) for task in tasks]
    return _as_json(rows) if as_json else _table(rows)


def final_tasks(session: Session, request: SubmitRequest) -> list[Task]:
    """Returns one task per experiment and repetition.

    Raises ConfigError for an unknown experiment, and InputError if data or parameters are missing.
    """
    names = [experiment.name for experiment in session.study.experiments]
    if request.experiment is not None and request.experiment not in names:
        raise ConfigError(
            f"--experiment {request.experiment}: there is no such experiment; there are {', '.join(names)}"
        )
    rows = states(session.study, session.steps, session.artifacts)
    requested = [name for name in names if request.experiment in (None, name)]
    return [task for name in requested for task in _tasks_of(session, name, request, rows)]


def _tasks_of(session: Session, experiment: str, request: SubmitRequest, rows: Sequence[StepState]) -> list[Task]:
    # equal experiments share their steps, so that only the roles in the report's needs have each one's name
    roles = session.steps[-1].needs
    own = [step for role, step in roles.items() if role.startswith(f"final/{experiment}/")]
    committed = {row.step.id: row.manifest for row in rows if row.manifest is not None}
    step = own[0]
    missing = sorted(
        needed.label for role, needed in step.needs.items() if role not in SEARCHES and needed.id not in committed
    )
    if missing:
        raise InputError(
            f"experiment {experiment}: there is nothing to train on yet: {', '.join(missing)} not committed; "
            "`tailfill status` shows the study's progress"
        )
    seeds = request.seeds or len(own)
    searches = [needed for role, needed in step.needs.items() if role in SEARCHES]
    if request.parameters is None and all(needed.id in committed for needed in searches):
        repeats = [_repeat(step, number) for number in range(seeds)]
        return [make_task(session.study, repeat, committed) for repeat in repeats]
    parameters = request.parameters
    if parameters is None:
        config = _config(step)
        best = _best_so_far(session, searches[0], rows)
        parameters = inherited(best, config.pinned) if "parameters" in step.needs else best
        log.info("best parameters so far", experiment=experiment, parameters=parameters)
    inputs = {
        role: Input(stage=m.stage, key=m.key, digest=m.digest)
        for role, needed in step.needs.items()
        if role not in SEARCHES and (m := committed[needed.id])
    }
    return [_task_with(session, step, experiment, number, parameters, inputs) for number in range(seeds)]


def _repeat(step: Step, number: int) -> Step:
    return replace(step, config=_config(step).model_copy(update={"repeat": number}))


def _config(step: Step) -> FinalConfig:
    assert isinstance(step.config, FinalConfig)
    return step.config


def _task_with(
    session: Session, step: Step, experiment: str, number: int, parameters: Mapping[str, Any], inputs: dict[str, Input]
) -> Task:
    arm = apply_parameters(_config(step).arm, parameters)
    config = _config(step).model_copy(update={"repeat": number, "arm": arm, "pinned": ()})
    return new_task(session.study.name, "final", config, inputs, session.study.resources, experiment)


def _best_so_far(session: Session, tune: Step, rows: Sequence[StepState]) -> dict[str, Any]:
    """Returns the parameters that a search's coordinator would commit now: those that it takes over, and the best that it has found.

    Raises InputError if the search has no complete trial.
    """
    from shared.search.results import best_so_far

    row = next(row for row in rows if row.step.id == tune.id)
    if row.manifest is not None:
        best: dict[str, Any] = row.manifest.summary["parameters"]
        return best
    config = tune.config
    assert isinstance(config, TuneConfig)
    taken_over = _best_so_far(session, tune.needs["parameters"], rows) if "parameters" in tune.needs else {}
    own = None
    if row.task is not None:
        own = best_so_far(session.database_url, name_of_search(row.task, session.artifacts), config.search)
    if own is None:
        raise InputError(
            f"{tune.label}: has no complete trial yet, so there are no best parameters; wait for one, or name some with --params"
        )
    return inherited(taken_over, config.pinned) | own


def _repeat_of(task: Task) -> int:
    assert isinstance(task.config, FinalConfig)
    return task.config.repeat


def _create_job(release: Release, task: Task) -> None:
    name = release.job_name(task)
    job = release.cluster.get("jobs", name)
    # if it is complete, its result was removed since
    if job is not None and job_state(job).phase in ("failed", "complete"):
        release.cluster.delete("jobs", name)
    if release.create_job(task, submitted=True):
        log.info("submitted", job=name)
    else:
        log.info("exists already", job=name)


def _follow(release: Release, session: Session, task: Task) -> Manifest:
    """Prints the logs of the task's Pods until it is committed, and returns its manifest; raises InputError if its Job fails."""
    name, seen, logged = release.job_name(task), set[str](), None
    training = f"{task.experiment} {_repeat_of(task)}"
    while True:
        if manifest := session.artifacts.find("final", task.key):
            return manifest
        job = release.cluster.get("jobs", name)
        if job is None:
            raise InputError(f"{name}: the Job was removed before it committed; submit again")
        if (state := job_state(job)).phase == "failed":
            raise InputError(f"{name}: failed: {state.reason} {release.failure(job)}")
        pods = release.cluster.list("pods", f"batch.kubernetes.io/job-name={name}")
        reason = job_reason(job, pods, release.cluster.list("events", field_selector=f"involvedObject.name={name}"))
        if reason and reason != logged:
            log.info(f"{name} waits: {reason}")
        logged = reason
        for pod in pods:
            if pod["metadata"]["name"] not in seen and pod["status"].get("phase") in ("Running", "Succeeded", "Failed"):
                seen.add(pod["metadata"]["name"])
                _follow_pod(release, pod["metadata"]["name"], training)
        time.sleep(POLL_SECONDS)


def _follow_pod(release: Release, pod: str, training: str) -> None:
    try:
        for line in release.cluster.logs(pod):
            _print_line(training, line)
    except (ClusterError, UnavailableError) as error:  # the training continues without being followed
        log.warning("its log cannot be followed any more", pod=pod, reason=str(error))


def _print_line(training: str, line: str) -> None:
    """Prints a line of a Pod's log as text."""
    try:
        PlainConsole().line(training, json.loads(line))
    except (ValueError, TypeError, KeyError):
        print(f"[{training}] {line}", file=sys.stderr, flush=True)  # no log line: a traceback, or a library's warning


def _table(rows: Sequence[tuple[Task, Manifest]]) -> str:
    names = [metric.name for metric in METRICS if metric.headline]
    width = max(map(len, names))
    lines = [f"{'experiment':20} {'seed':>4}  " + "  ".join(f"{name:>{width}}" for name in names)]
    for task, manifest in rows:
        values = "  ".join(f"{_number(manifest.summary[name]):>{width}}" for name in names)
        lines.append(f"{task.experiment or '':20} {_repeat_of(task):>4}  {values}")
    for experiment in dict.fromkeys(task.experiment for task, _ in rows):
        own = [manifest.summary for task, manifest in rows if task.experiment == experiment]
        if len(own) > 1:
            means = (_mean([summary[name] for summary in own]) for name in names)
            lines.append(f"{experiment or '':20} mean  " + "  ".join(f"{text:>{width}}" for text in means))
    return "\n".join(lines)


def _number(value: float | None) -> str:
    """Returns a metric as text; a dash if it is undefined, as that of rare classes in a study without any."""
    return "–" if value is None else f"{value:.4f}"


def _mean(values: Sequence[float | None]) -> str:
    defined = [value for value in values if value is not None]
    return f"{statistics.mean(defined):.4f} ± {statistics.stdev(defined):.4f}" if len(defined) > 1 else "–"


def _as_json(rows: Sequence[tuple[Task, Manifest]]) -> str:
    return json.dumps(
        [
            {"experiment": task.experiment, "seed": _repeat_of(task), "key": task.key, "metrics": manifest.summary}
            for task, manifest in rows
        ],
        indent=1,
    )
