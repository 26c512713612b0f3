"""Runs a study's stages as Jobs of a cluster, in the release's control Pod (`tailfill control`).

A Job is created from the manifest that the chart rendered, when everything that it needs is committed, since a Job that waits would hold its
GPU. Tuning workers are the Pods of a Deployment that users scale; they get GPUs while there are trials for them.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from shared.config.task import Task
from shared.kube.api import ClusterError, Object
from shared.kube.manifests import (
    MANIFEST,
    SUBMITTED,
    jobs_selector,
    manifest_digest,
    parallelism,
)
from shared.kube.release import Release
from shared.kube.states import at_work, job_state
from shared.log import Log
from shared.pipeline.plan import Step
from shared.pipeline.scheduler import CompletedStep
from shared.pipeline.session import Session
from shared.pipeline.worker_scaling import WorkerScaling

PATIENCE_SECONDS = (
    600.0  # for which a service may be unavailable before control ends with 75, and Kubernetes restarts it
)
STORE_SECONDS = 30.0  # between two checks of the store for what others have committed
REJECTED_SECONDS = 60.0  # before a Job that the cluster rejected is created again
CLOCK_SKEW_SECONDS = 60.0  # by which the clocks of nodes and API server may differ

log = Log("control")


@dataclass
class _JobTask:
    """A task whose work is done by a Job."""

    step: Step
    task: Task
    failed: str | None = None
    """Why it failed, in the words of Kubernetes and of its Pod; None if it has not failed."""
    not_before: float = 0.0
    """The time, by the monotonic clock, before which a missing Job is not created again."""
    kept_until: float = math.inf
    """When Kubernetes removes its failed Job, in seconds since 1970. If the Job is gone before that, a user has removed it."""


class KubeExecutor:
    """Implements `shared.pipeline.scheduler.Executor`."""

    tick_seconds = 2.0
    patience = PATIENCE_SECONDS

    def __init__(self, release: Release, session: Session) -> None:
        self.release, self.session = release, session
        self.tasks: dict[str, _JobTask] = {}
        """The tasks that are not complete, by step id."""
        self._workers = WorkerScaling(release.cluster, release.name, session)
        self._cleaned_up = False
        self._store_checked = time.monotonic()
        self._committed = set[str]()
        """Ids of steps whose result the last check of the store found while their Job was not complete."""

    def begin(self, step: Step, task: Task) -> None:
        """Accepts the task, whose Job the next `advance` creates."""
        self.tasks[step.id] = _JobTask(step, task)

    def advance(self) -> list[CompletedStep]:
        """Scales the tuning workers, creates missing Jobs, and returns the steps that are complete."""
        jobs = {
            job["metadata"]["name"]: job for job in self.release.cluster.list("jobs", jobs_selector(self.release.name))
        }
        if not self._cleaned_up:
            self._clean_up_jobs(jobs)
        active = Counter(
            str(job["metadata"]["labels"]["app.kubernetes.io/component"])
            for job in jobs.values()
            if job_state(job).phase in ("active", "suspended")
        )
        self._workers.advance(
            [entry.task for entry in self.tasks.values() if entry.task.stage == "tune" and entry.failed is None]
        )
        completed = self._committed_elsewhere(jobs)
        completed_ids = {done.step.id for done in completed}
        for entry in (entry for id_, entry in self.tasks.items() if id_ not in completed_ids):
            job = jobs.get(self.release.job_name(entry.task))
            if job is None:
                completed += self._create_job(entry, active)
                continue
            state = job_state(job)
            if state.phase == "complete":
                completed.append(CompletedStep(entry.step, _seconds(job)))
            elif state.phase == "failed" and entry.failed is None:
                self._record_failure(entry, " ".join(filter(None, [state.reason, self.release.failure(job)])))
                entry.kept_until = _kept_until(job)
        for done in completed:  # last, since an error after the removal of a step would lose it
            del self.tasks[done.step.id]
        return completed

    def _record_failure(self, entry: _JobTask, reason: str) -> None:
        if entry.failed != reason:
            log.error(
                f"{entry.step.label}: its Job {self.release.job_name(entry.task)} failed: {reason}; fix it with `helm upgrade`, "
                "or delete that Job (or control's Pod) to try again"
            )
        entry.failed = reason

    def end(self) -> None:
        """Leaves the Jobs alone, which continue without control."""

    def _clean_up_jobs(self, jobs: dict[str, Object]) -> None:
        """Deletes Jobs of an earlier control that do not fit the plan, and scales the workers once.

        Those are Jobs whose key is not in the plan any more, those that failed or whose result was removed since, and those that have no
        running Pod and were created from another manifest, such as one with a missing image. The latter three are created again. A running Job
        that is in the plan is left alone.
        """
        entries = {self.release.job_name(entry.task): entry for entry in self.tasks.values()}
        for name, job in list(jobs.items()):
            active = job_state(job).phase in ("active", "suspended")
            if active and name not in entries and SUBMITTED not in job["metadata"]["labels"]:
                log.info("a Job that is not in the plan any more is deleted", job=name)
            elif name in entries and not active:
                log.info("a Job is created again", job=name, was=job_state(job).phase)
            elif name in entries and not at_work(job) and not self._is_current(job, entries[name]):
                log.info("a Job without a running Pod is created again from its new manifest", job=name)
            else:
                continue
            self.release.cluster.delete("jobs", name)
            del jobs[name]
        self._workers.scale_once()
        self._cleaned_up = True

    def _is_current(self, job: Object, entry: _JobTask) -> bool:
        created_from = job["metadata"].get("annotations", {}).get(MANIFEST)
        return bool(created_from == manifest_digest(self.release.manifests[entry.task.stage]))

    def _create_job(self, entry: _JobTask, active: Counter[str]) -> list[CompletedStep]:
        """Creates the task's Job, unless its stage has as many active ones as it may; returns the step if it was committed meanwhile."""
        stage = entry.task.stage
        most = parallelism(self.release.manifests[stage])
        if (most is not None and active[stage] >= most) or time.monotonic() < entry.not_before:
            return []
        if self.session.artifacts.find(stage, entry.task.key) is not None:
            return [CompletedStep(entry.step, None)]
        if time.time() >= entry.kept_until:  # Kubernetes has removed its failed Job, which no user did to try again
            entry.not_before = time.monotonic() + STORE_SECONDS
            return []
        try:
            if self.release.create_job(entry.task):
                log.info(f"{entry.step.label}: begun", job=self.release.job_name(entry.task))
            entry.failed, entry.kept_until = None, math.inf  # a user deleted the failed Job, to have it created again
            active[stage] += 1
        except ClusterError as error:  # a policy or a quota, which does not concern the other tasks
            self._record_failure(entry, str(error))
            entry.not_before = time.monotonic() + REJECTED_SECONDS
        return []

    def _committed_elsewhere(self, jobs: dict[str, Object]) -> list[CompletedStep]:
        """Returns the steps that another machine has committed while their Job here waits for a node or has failed, and deletes the Job.

        The store is checked every `STORE_SECONDS`.
        """
        if time.monotonic() - self._store_checked < STORE_SECONDS:
            return []
        self._store_checked = time.monotonic()
        before, self._committed = self._committed, set()
        completed = []
        for id_, entry in self.tasks.items():
            job = jobs.get(self.release.job_name(entry.task))
            if job is None or job_state(job).phase == "complete" or (job_state(job).phase == "active" and at_work(job)):
                continue
            if self.session.artifacts.find(entry.task.stage, entry.task.key) is None:
                continue
            # a Job whose own Pod has just committed is complete by the next check, and is kept for users to inspect
            self._committed.add(id_)
            if id_ in before:
                completed.append(CompletedStep(entry.step, None))
                self.release.cluster.delete("jobs", job["metadata"]["name"])
        return completed


def _kept_until(job: Object) -> float:
    """Returns when Kubernetes removes a failed Job, in seconds since 1970; a minute early, since that is by Kubernetes' clock."""
    (failed,) = (c for c in job["status"]["conditions"] if c["type"] == "Failed")
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    if ttl is None:
        return math.inf
    return datetime.fromisoformat(failed["lastTransitionTime"]).timestamp() + float(ttl) - CLOCK_SKEW_SECONDS


def _seconds(job: Object) -> float | None:
    status = job["status"]
    begun, ended = status.get("startTime"), status.get("completionTime")
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds() if begun and ended else None
