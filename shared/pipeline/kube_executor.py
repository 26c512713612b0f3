"""A study's stages as Jobs of a cluster: what the release's control Pod runs, `tailfill control`.

Jobs are made from the manifests that the chart rendered, when everything that they need is committed: a Job that waits would hold its GPU.
Tuning workers are the Pods of a Deployment that people scale; they are let through to a GPU while there are trials for them.
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

PATIENCE_SECONDS = 600.0  # that a service may be away before control ends with 75, and is started again
STORE_SECONDS = 30.0  # between two looks at the store for what others have committed
REFUSED_SECONDS = 60.0  # before a Job that the cluster refused is asked for again
DONE_SECONDS = 10.0  # between two looks once the report is there: only workers that are scaled up need one
CLOCKS_SECONDS = 60.0  # that the clocks of nodes and API server may differ
SAY_SECONDS = 30.0  # between two lines on a service that is still away

log = Log("control")


@dataclass
class _Work:
    """A task that is a Job's."""

    step: Step
    task: Task
    failed: str | None = None
    """Why, in Kubernetes' words and those of its Pod."""
    not_before: float = 0.0
    """When a Job that is missing is asked for again, by the monotonic clock."""
    kept_until: float = math.inf
    """When Kubernetes removes its failed Job, in seconds since 1970: before that, only a person does."""


class KubeExecutor:
    """Implements `shared.pipeline.scheduler.Executor`."""

    tick_seconds = 2.0
    patience = PATIENCE_SECONDS

    def __init__(self, release: Release, opened: Session) -> None:
        self.release, self.opened = release, opened
        self.work: dict[str, _Work] = {}
        self._workers = WorkerScaling(release.cluster, release.name, opened)
        self._looked = False
        self._read_store = time.monotonic()
        self._committed = set[str]()
        """Steps whose result the last look at the store found, while their Job was not complete."""

    def begin(self, step: Step, task: Task) -> None:
        """Has a Job made for the task."""
        self.work[step.id] = _Work(step, task)

    def advance(self) -> list[CompletedStep]:
        """Looks after the tuning workers, makes Jobs that are missing, and says which are complete."""
        jobs = {
            job["metadata"]["name"]: job for job in self.release.cluster.list("jobs", jobs_selector(self.release.name))
        }
        if not self._looked:
            self._first_look(jobs)
        there = Counter(
            str(job["metadata"]["labels"]["app.kubernetes.io/component"])
            for job in jobs.values()
            if job_state(job).phase in ("active", "suspended")
        )
        self._workers.advance(
            [work.task for work in self.work.values() if work.task.stage == "tune" and work.failed is None]
        )
        ended = self._done_elsewhere(jobs)
        seen = {done.step.id for done in ended}
        for work in (work for id_, work in self.work.items() if id_ not in seen):
            job = jobs.get(self.release.job_name(work.task))
            if job is None:
                ended += self._ensure(work, there)
                continue
            state = job_state(job)
            if state.phase == "complete":
                ended.append(CompletedStep(work.step, _seconds(job)))
            elif state.phase == "failed" and work.failed is None:
                self._failed(work, " ".join(filter(None, [state.reason, self.release.failure(job)])))
                work.kept_until = _kept_until(job)
        for done in ended:  # last: what is taken out here is not looked at again, so nothing after it may fail
            del self.work[done.step.id]
        return ended

    def _failed(self, work: _Work, reason: str) -> None:
        if work.failed != reason:
            log.error(
                f"{work.step.label}: its Job {self.release.job_name(work.task)} failed: {reason}; mend it with `helm upgrade`, "
                "or delete that Job (or control's Pod) to try again"
            )
        work.failed = reason

    def end(self) -> None:
        """Leaves Jobs as they are: they go on without control."""

    def _first_look(self, jobs: dict[str, Object]) -> None:
        """Ends Jobs whose key left the plan. Those that failed, whose result was removed since, or that have no Pod at work and another
        manifest now (a node or an image that there is not), are made again; one that runs is not disturbed."""
        works = {self.release.job_name(work.task): work for work in self.work.values()}
        for name, job in list(jobs.items()):
            active = job_state(job).phase in ("active", "suspended")
            if active and name not in works and SUBMITTED not in job["metadata"]["labels"]:
                log.info("a Job is no part of the plan any more and is ended", job=name)
            elif name in works and not active:
                log.info("a Job is made again", job=name, was=job_state(job).phase)
            elif name in works and not at_work(job) and not self._is_current(job, works[name]):
                log.info("a Job that is not at work is made again from its new manifest", job=name)
            else:
                continue
            self.release.cluster.delete("jobs", name)
            del jobs[name]
        self._workers.scale_once()
        self._looked = True

    def _is_current(self, job: Object, work: _Work) -> bool:
        made_from = job["metadata"].get("annotations", {}).get(MANIFEST)
        return bool(made_from == manifest_digest(self.release.manifests[work.task.stage]))

    def _ensure(self, work: _Work, there: Counter[str]) -> list[CompletedStep]:
        """Makes the task's Job, unless as many of its stage are there as may be, or its work was done meanwhile."""
        stage = work.task.stage
        most = parallelism(self.release.manifests[stage])
        if (most is not None and there[stage] >= most) or time.monotonic() < work.not_before:
            return []
        if self.opened.artifacts.find(stage, work.task.key) is not None:
            return [CompletedStep(work.step, None)]
        if time.time() >= work.kept_until:  # Kubernetes has removed its failed Job, nobody asks for another
            work.not_before = time.monotonic() + STORE_SECONDS
            return []
        try:
            if self.release.create_job(work.task):
                log.info(f"{work.step.label}: begun", job=self.release.job_name(work.task))
            work.failed, work.kept_until = None, math.inf  # a person deleted the failed Job, to have it made again
            there[stage] += 1
        except ClusterError as error:  # a policy or a quota: the others go on
            self._failed(work, str(error))
            work.not_before = time.monotonic() + REFUSED_SECONDS
        return []

    def _done_elsewhere(self, jobs: dict[str, Object]) -> list[CompletedStep]:
        """Now and then: what another machine has committed while its Job here waits for a node, or has failed."""
        if time.monotonic() - self._read_store < STORE_SECONDS:
            return []
        self._read_store = time.monotonic()
        before, self._committed = self._committed, set()
        ended = []
        for id_, work in self.work.items():
            job = jobs.get(self.release.job_name(work.task))
            if job is None or job_state(job).phase == "complete" or (job_state(job).phase == "active" and at_work(job)):
                continue
            if self.opened.artifacts.find(work.task.stage, work.task.key) is None:
                continue
            # by the next look a Job whose own Pod has just ended well is complete, and stays for people to look at
            self._committed.add(id_)
            if id_ in before:
                ended.append(CompletedStep(work.step, None))
                self.release.cluster.delete("jobs", job["metadata"]["name"])
        return ended


def _kept_until(job: Object) -> float:
    """When Kubernetes removes a failed Job (by its own clock: a minute early, then), in seconds since 1970."""
    (failed,) = (c for c in job["status"]["conditions"] if c["type"] == "Failed")
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    if ttl is None:
        return math.inf
    return datetime.fromisoformat(failed["lastTransitionTime"]).timestamp() + float(ttl) - CLOCKS_SECONDS


def _seconds(job: Object) -> float | None:
    status = job["status"]
    begun, ended = status.get("startTime"), status.get("completionTime")
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds() if begun and ended else None
