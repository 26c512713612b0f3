"""Describes the state of a release: its steps and searches, its Jobs and Pods, and why nothing moves if nothing does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shared.artifacts.artifacts import Artifacts
from shared.errors import UnavailableError
from shared.kube.api import Cluster, Object
from shared.kube.manifests import held_tasks, is_worker, jobs_selector
from shared.kube.states import gpus_held, job_reason, job_state, leaving, mount_reason, pod_reason, pods_of
from shared.pipeline import search_status
from shared.pipeline import status as step_status
from shared.pipeline.final_requests import FinalRequests
from shared.pipeline.search_status import Hints
from shared.pipeline.session import Session
from shared.pipeline.status import StepState, TaskStatus, task_id
from shared.search.connections import workers_limit


@dataclass(frozen=True)
class Refusals:
    """Says what control could not do, which no object of the cluster tells."""

    steps: Mapping[str, str] = field(default_factory=dict)
    """Says why the task of a step has failed or its Job was refused, by the step's id."""
    worker: str | None = None
    """Says why the cluster refused the last worker that control tried to create."""


@dataclass(frozen=True)
class ReleaseSnapshot:
    """Holds the objects of a release in the Kubernetes API at one moment."""

    release: str
    control: list[Object]
    """Lists the Pods of control."""
    jobs: list[Object]
    pods: list[Object]
    """Lists the Pods of the Jobs."""
    workers: list[Object]
    """Lists the Jobs of tuning workers."""
    workers_pods: list[Object]
    workers_allowed: int
    """Gives the number of workers to which users have scaled the Deployment."""
    events: list[Object]
    """Lists the warnings in the namespace."""
    workloads: Sequence[Object] = ()
    """Lists Kueue's Workloads in the namespace, if a Job is suspended."""
    database_allows: int | None = None
    """Gives the number of workers that PostgreSQL has connections for; None if it is not known, or a pooler is in between."""
    refused_worker: str | None = None
    """Says why the cluster refused the last worker; None if it did not."""

    @classmethod
    def take(cls, cluster: Cluster, release: str) -> ReleaseSnapshot:
        """Returns the release as it is now."""
        selector = jobs_selector(release)
        jobs, pods = cluster.list("jobs", selector), cluster.list("pods", selector)
        scale = cluster.get("deployments", f"{release}-tune/scale")
        return cls(
            release,
            cluster.list("pods", control_selector(release)),
            [job for job in jobs if not is_worker(job)],
            [pod for pod in pods if not is_worker(pod)],
            [job for job in jobs if is_worker(job)],
            [pod for pod in pods if is_worker(pod)],
            0 if scale is None else int(scale["spec"].get("replicas", 0)),
            cluster.list("events", field_selector="type=Warning"),
            cluster.list_if_served("workloads") if any(job_state(job).phase == "suspended" for job in jobs) else (),
        )

    def task_statuses(self, artifacts: Artifacts) -> dict[str, TaskStatus]:
        """Returns the status of each task that has a Job, by `task_id`.

        In a block, the Job's status is that of the first task that is not committed. The others wait for it; if the Job has failed, control
        creates another one for them.
        """
        statuses = dict[str, TaskStatus]()
        jobs = [job for job in self.jobs if job_state(job).phase != "complete"]
        for job in sorted(jobs, key=lambda job: job_state(job).phase == "failed", reverse=True):
            missing = [held for held in held_tasks(job) if artifacts.find(*held) is None]
            for position, held in enumerate(missing):
                if position == 0:
                    statuses[task_id(*held)] = self._task_status(job)
                elif job_state(job).phase != "failed":
                    name = job["metadata"]["name"]
                    statuses[task_id(*held)] = TaskStatus("pending", f"number {position + 1} of what {name} has left")
        return statuses

    def _task_status(self, job: Object) -> TaskStatus:
        name = job["metadata"]["name"]
        pods = pods_of(name, self.pods)
        reason = job_reason(job, pods, self._events_of(name), self.workloads)
        if reason is not None:
            return TaskStatus("failed" if job_state(job).phase == "failed" else "pending", reason)
        if any(pod["status"].get("phase") == "Running" for pod in pods):
            return TaskStatus("running")
        events = [event for pod in pods for event in self._events_of(pod["metadata"]["name"])]
        return TaskStatus("pending", mount_reason(events) or "its Pod is starting")

    def _events_of(self, name: str) -> list[Object]:
        return [event for event in self.events if event["involvedObject"].get("name") == name]

    def lines(self) -> list[str]:
        """Returns the state of control, workers and GPUs as text, with the reasons why one does not work."""
        return [f"control: {self._control_state()}", *self._worker_lines(), f"GPUs held: {self.gpus}"]

    @property
    def gpus(self) -> int:
        """Returns the number of GPUs that the release's Pods hold."""
        return gpus_held([*self.pods, *self.workers_pods])

    @property
    def control_runs(self) -> bool:
        """Returns whether control runs, and nothing speaks of a recent end."""
        return self._control_state() == "running"

    def _control_state(self) -> str:
        alive = [pod for pod in self.control if not leaving(pod)]
        if not alive:
            return f"has no Pod; see `kubectl describe deployment/{self.release}-control`"
        reason = next(filter(None, map(pod_reason, alive)), None)
        return reason or str(alive[0]["status"].get("phase", "Pending")).lower()

    def _worker_lines(self) -> list[str]:
        waiting = self._workers_without_job()
        without = f"{waiting} without: no trial waits for them, or they failed (see control's log)"
        if self.refused_worker is not None:
            without = f"{waiting} without: refused: {self.refused_worker}"
        held = ""
        if self.database_allows is not None and self.database_allows < self.workers_allowed:
            held = (
                f"PostgreSQL has connections for {self.database_allows} (raise its max_connections, or use PgBouncer), "
            )
        return [
            f"workers: {self.workers_allowed} allowed (`kubectl scale deployment/{self.release}-tune` changes it), {held}"
            f"{self._workers_with_job()} with a Job" + (f", {without}" if waiting else ""),
            *(f"  {name}: {reason}" for name, reason in self._stuck_workers().items()),
        ]

    def _workers_with_job(self) -> int:
        return sum(not job_state(job).ended for job in self.workers)

    def _workers_without_job(self) -> int:
        limit = self.workers_allowed if self.database_allows is None else self.database_allows
        return max(min(self.workers_allowed, limit) - self._workers_with_job(), 0)

    def _stuck_workers(self) -> dict[str, str]:
        """Returns why a worker's Job makes no progress, by its name."""
        jobs = {job["metadata"]["name"]: job for job in self.workers}
        reasons = {
            name: job_reason(job, pods_of(name, self.workers_pods), self._events_of(name), self.workloads)
            for name, job in jobs.items()
        }
        return {name: reason for name, reason in reasons.items() if reason}

    def as_json(self) -> dict[str, Any]:
        """Returns the same for a script, as JSON values."""
        stuck = {pod["metadata"]["name"]: reason for pod in self.pods if (reason := pod_reason(pod))}
        if self.refused_worker is not None:
            stuck["workers"] = f"refused: {self.refused_worker}"
        return {
            "control": self._control_state(),
            "workers": {
                "all": self.workers_allowed,
                "waiting": self._workers_without_job(),
                "database_allows": self.database_allows,
            },
            "gpus_held": self.gpus,
            "stuck": stuck | self._stuck_workers(),
        }


def control_selector(release: str) -> str:
    """Returns the label selector of the Pods of a release's control."""
    return f"app.kubernetes.io/instance={release},app.kubernetes.io/component=control"


def describe_release(
    snapshot: ReleaseSnapshot,
    session: Session | None,
    waiting: str,
    requests: FinalRequests | None,
    refusals: Refusals,
    as_json: bool,
) -> str:
    """Returns the progress of the release's study, and why nothing moves if nothing does.

    `session` is None until control has reached its services; `waiting` then says for what it waits.
    """
    hints = release_hints(snapshot.release)
    snapshot = replace(snapshot, refused_worker=refusals.worker)
    try:
        if session is None:
            raise UnavailableError(waiting)
        statuses = snapshot.task_statuses(session.artifacts)
        rows = step_status.states(session.study, session.steps, session.artifacts, statuses)
        rows = [_with_refusal(row, refusals.steps) for row in rows]
        searches = search_status.search_states(rows, session.artifacts, session.database_url, hints)
        snapshot = replace(snapshot, database_allows=_database_allows(session, len(searches)))
    except UnavailableError as error:
        stall = f"nothing moves: {error}"
        if as_json:
            return json.dumps({"stall": stall, **snapshot.as_json()}, indent=1)
        return "\n".join([stall, *snapshot.lines()])
    if as_json:
        steps = step_status.as_json(rows, search_status.as_json(searches))
        listed = [state.as_json() for state in requests.states()] if requests else []
        return json.dumps({"steps": steps, "requests": listed, **snapshot.as_json()}, indent=1)
    texts = [step_status.describe(rows, hints.resume), search_status.describe(searches), *snapshot.lines()]
    return "\n".join(filter(None, [*texts, *_request_lines(requests)]))


def _with_refusal(row: StepState, refused: Mapping[str, str]) -> StepState:
    """Returns the state of a step, which has failed if it has no Job since the cluster refused it."""
    if row.state != "ready" or row.step.id not in refused:
        return row
    return replace(row, status=TaskStatus("failed", refused[row.step.id]))


def _database_allows(session: Session, searches: int) -> int | None:
    """Returns how many workers PostgreSQL has connections for; None without a search, or if it is unavailable, as the searches' lines say."""
    try:
        return workers_limit(session.database_url, searches) if searches else None
    except UnavailableError:
        return None


def _request_lines(requests: FinalRequests | None) -> Sequence[str]:
    if requests is None:
        return ()
    problem = [f"requests cannot be read: {requests.problem}"] if requests.problem else []
    lines = [f"  {state.line()}" for state in requests.states()]
    return [*problem, *(["requests (`tailfill submit withdraw NAME` ends one):", *lines] if lines else [])]


def release_hints(release: str) -> Hints:
    """Returns what a user can do if nothing moves in a release."""
    return Hints(
        f"see `kubectl logs deployment/{release}-control`",
        f"`kubectl scale deployment/{release}-tune --replicas=2` adds some, unless they are listed below with a reason",
    )
