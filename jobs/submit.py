"""Runs final trainings with the best parameters found so far, as Jobs of the release, for `make submit-final`.

If the search is complete, these are the study's own trainings, with the same key, Job and result. Otherwise they are additional ones, which
are kept in the store and are not in the report.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from shared.artifacts.keys import new_task
from shared.artifacts.manifest import Manifest
from shared.config.apply_parameters import apply_parameters, inherited
from shared.config.seeds import repetition_seed
from shared.config.stages import FinalConfig, TuneConfig
from shared.config.task import BEGINS, ENDS, Input, Task
from shared.errors import ConfigError, InputError, UnavailableError
from shared.kube.api import ClusterError, Object
from shared.kube.manifests import held_tasks, jobs_selector, parallelism
from shared.kube.mirror import Mirror
from shared.kube.release import Release
from shared.kube.states import job_reason, job_state, leaving, pods_of
from shared.log import Log
from shared.metrics.table import METRICS
from shared.pipeline.blocks import deal
from shared.pipeline.console import PlainConsole
from shared.pipeline.plan import Step, make_task
from shared.pipeline.search_status import name_of_search
from shared.pipeline.session import Session
from shared.pipeline.status import StepState, states

POLL_SECONDS = 2.0

log = Log("submit")


@dataclass(frozen=True)
class SubmitRequest:
    """Says which final trainings to run."""

    experiment: str | None = None
    """Names the experiment; None stands for all experiments."""
    seeds: int | None = None
    """Sets the number of repetitions per experiment; None takes the study's `final.seeds`."""
    parameters: Mapping[str, Any] | None = None
    """Holds the parameters by path; None takes the best found so far."""


def submit_final(release: Release, session: Session, request: SubmitRequest, as_json: bool) -> str:
    """Creates the Jobs that are missing, follows their logs, and returns the metrics as a table or as JSON.

    Raises ConfigError for an unknown experiment, and InputError if data or parameters are missing or a training fails.
    """
    tasks = final_tasks(session, request)
    with final_jobs(release, session) as jobs:
        rows = _run(jobs, tasks)
    return _as_json(rows) if as_json else _table(rows)


@dataclass(frozen=True)
class FinalJobs:
    """Holds the Jobs of a release's final trainings, and their Pods, as copies that the API server keeps up to date."""

    release: Release
    session: Session
    jobs: Mirror
    pods: Mirror


@contextmanager
def final_jobs(release: Release, session: Session) -> Iterator[FinalJobs]:
    """Yields the Jobs of the release's final trainings, which are followed until the block ends."""
    selector = f"{jobs_selector(release.name)},app.kubernetes.io/component=final"
    with (
        closing(Mirror(release.cluster, "jobs", selector)) as jobs,
        closing(Mirror(release.cluster, "pods", selector)) as pods,
    ):
        yield FinalJobs(release, session, jobs, pods)


def _run(jobs: FinalJobs, tasks: Sequence[Task]) -> list[tuple[Task, Manifest]]:
    session = jobs.session
    manifests = {task.key: manifest for task in tasks if (manifest := session.artifacts.find("final", task.key))}
    left = [task for task in tasks if task.key not in manifests]
    trainings = {task.key: f"{task.experiment} {_repeat_of(task)}" for task in tasks}
    seen, created = set[str](), set[str]()
    while left:
        created |= _create_jobs(jobs, left, created)
        manifests[left[0].key] = _follow(jobs, left[0], trainings, seen)
        left.pop(0)
    return [(task, manifests[task.key]) for task in tasks]


def final_tasks(session: Session, request: SubmitRequest) -> list[Task]:
    """Returns one task per experiment and repetition.

    Raises ConfigError for an unknown experiment, and InputError if data or parameters are missing.
    """
    names = [experiment.name for experiment in session.study.experiments]
    if request.experiment is not None:
        session.study.experiment(request.experiment)
    rows = states(session.study, session.steps, session.artifacts)
    requested = [name for name in names if request.experiment in (None, name)]
    return [task for name in requested for task in _tasks_of(session, name, request, rows)]


def _tasks_of(session: Session, experiment: str, request: SubmitRequest, rows: Sequence[StepState]) -> list[Task]:
    # equal experiments share their steps, so only the roles in the report's needs have the name of each experiment
    roles = session.steps[-1].needs
    own = [step for role, step in roles.items() if role.startswith(f"final/{experiment}/")]
    seed = session.study.experiment(experiment).seed
    steps = [_repeat(own[number % len(own)], number, seed) for number in range(request.seeds or len(own))]
    committed = {row.step.id: row.manifest for row in rows if row.manifest is not None}
    needed = {step.id: step for each in steps for role, step in each.needs.items() if role != "tune"}
    if missing := sorted(step.label for id_, step in needed.items() if id_ not in committed):
        raise InputError(
            f"experiment {experiment}: there is nothing to train on yet: {', '.join(missing)} not committed; "
            "`tailfill status` shows the study's progress"
        )
    tune = own[0].needs.get("tune")
    if request.parameters is None and (tune is None or tune.id in committed):
        return [make_task(session.study, step, committed) for step in steps]
    parameters = request.parameters
    if parameters is None:
        assert tune is not None
        assert own[0].from_search is not None
        parameters = inherited(_best_so_far(session, tune, rows), own[0].from_search.without)
        log.info("best parameters so far", experiment=experiment, parameters=parameters)
    return [_task_with(session, step, experiment, parameters, committed) for step in steps]


def _repeat(step: Step, number: int, seed: int) -> Step:
    """Returns the step of a repetition, which trains with the best parameters of the whole search, not with those of its own repetition."""
    config = _config(step).model_copy(update={"repeat": number, "seed": repetition_seed(seed, number)})
    found = step.from_search and replace(step.from_search, repetition=None)
    return replace(step, config=config, from_search=found)


def _config(step: Step) -> FinalConfig:
    assert isinstance(step.config, FinalConfig)
    return step.config


def _task_with(
    session: Session, step: Step, experiment: str, parameters: Mapping[str, Any], committed: Mapping[str, Manifest]
) -> Task:
    config = _config(step).model_copy(update={"parameters": dict(parameters)})
    arm = apply_parameters(
        config.arm, config.parameters
    )  # raises for a value that is not allowed, before a Job is created
    if not arm.takes_all and "score" not in step.needs:
        raise ConfigError(
            f"--params: choose among the generated images of {experiment}, which the study does not score since it takes all of them; "
            "leave accept and synthetic.groups out, or set accept in the study"
        )
    inputs = {
        role: Input(stage=m.stage, key=m.key, digest=m.digest)
        for role, needed in step.needs.items()
        if role != "tune" and (m := committed[needed.id])
    }
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


def _create_jobs(jobs: FinalJobs, left: Sequence[Task], created: Collection[str]) -> set[str]:
    """Creates Jobs for the tasks that no Job works on, as many as may be active beside those `created` before; returns their names."""
    unfinished = [job for job in jobs.jobs.objects() if not job_state(job).ended]
    held = {key for job in unfinished for _, key in held_tasks(job)}
    missing = [task for task in left if task.key not in held and not jobs.session.artifacts.find("final", task.key)]
    own = sum(job["metadata"]["name"] in created for job in unfinished)
    blocks = deal(missing, parallelism(jobs.release.manifests["final"]), own)
    return {_create_job(jobs.release, jobs.session, block) for block in blocks}


def _create_job(release: Release, session: Session, block: Sequence[Task]) -> str:
    name = release.job_name(block)
    job = release.cluster.get("jobs", name)
    # if it is complete, its result has been removed since
    if job is not None and job_state(job).ended:
        release.cluster.delete("jobs", name)
    if release.create_job(session.artifacts, block, submitted=True):
        log.info("submitted", job=name, trainings=len(block))
    else:
        log.info("exists already", job=name)
    return name


def _job_of(jobs: FinalJobs, task: Task) -> Object | None:
    """Returns the Job that holds the task; if several do, it is one that is not finished."""
    holding = [job for job in jobs.jobs.objects() if ("final", task.key) in held_tasks(job)]
    return min(holding, key=lambda job: job_state(job).ended, default=None)


def _follow(jobs: FinalJobs, task: Task, trainings: Mapping[str, str], seen: set[str]) -> Manifest:
    """Prints the logs of the Pods of the task's Job until it is committed, and returns its manifest; raises InputError if its Job fails.

    `trainings` says what the tasks are called, by key, and `seen` holds the Pods whose logs were printed.
    """
    release, logged = jobs.release, None
    while True:
        if manifest := jobs.session.artifacts.find("final", task.key):
            return manifest
        job = _job_of(jobs, task)
        if job is None:
            raise InputError(f"{trainings[task.key]}: its Job was removed before it committed; submit again")
        name = job["metadata"]["name"]
        if (state := job_state(job)).phase == "failed":
            raise InputError(f"{name}: failed: {state.reason} {release.failure(job)}")
        pods = pods_of(name, jobs.pods.objects())
        # events say why no Pod can be made, and nothing else that is shown here
        events = (
            release.cluster.list("events", field_selector=f"involvedObject.name={name}")
            if all(map(leaving, pods))
            else []
        )
        reason = job_reason(job, pods, events)
        if reason and reason != logged:
            log.info(f"{name} waits: {reason}")
        logged = reason
        for pod in pods:
            if pod["metadata"]["name"] not in seen and pod["status"].get("phase") in ("Running", "Succeeded", "Failed"):
                seen.add(pod["metadata"]["name"])
                _follow_pod(release, pod["metadata"]["name"], trainings[task.key], trainings)
        time.sleep(POLL_SECONDS)


def _follow_pod(release: Release, pod: str, training: str, trainings: Mapping[str, str]) -> None:
    """Prints the log of a Pod; `training` is what it works on before it says so."""
    try:
        for line in release.cluster.logs(pod):
            training = _print_line(training, line, trainings)
    except (ClusterError, UnavailableError) as error:  # the training continues without being followed
        log.warning("its log cannot be followed any more", pod=pod, reason=str(error))


def _print_line(training: str, line: str, trainings: Mapping[str, str]) -> str:
    """Prints a line of a Pod's log as text, after the name of the training that it is of; returns that name."""
    try:
        values = json.loads(line)
        if values["event"] == BEGINS:
            return trainings.get(values["key"], f"{values['experiment']}")
        if values["event"] != ENDS:
            PlainConsole().line(training, values)
    except (ValueError, TypeError, KeyError):
        PlainConsole().say(f"[{training}] {line}")  # no log line: a traceback, or a library's warning
    return training


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
