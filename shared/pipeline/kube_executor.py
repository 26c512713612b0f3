"""Runs a study's stages as Jobs of a cluster, in the release's control Pod (`tailfill control`).

A Job is created from the manifest that the chart rendered, when everything that it needs is committed, since a Job that waits would hold its
GPU. If the tasks of a stage are many, a Job holds a block of them, whose keys its Pod's annotation lists; control keeps no list of its own. Tuning
workers are Jobs too, which `shared.pipeline.worker_scaling` manages. The API server tells what happens to Jobs and Pods; it is not asked.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.config.stages import Stage
from shared.config.task import Task
from shared.kube.api import Object
from shared.kube.errors import ClusterError
from shared.kube.lost_pods import replace_lost_pods
from shared.kube.manifests import (
    MANIFEST,
    STUDY,
    SUBMITTED,
    held_tasks,
    is_worker,
    jobs_selector,
    manifest_digest,
    parallelism,
)
from shared.kube.mirror import Mirror
from shared.kube.release import Release
from shared.kube.states import at_work, failed_at, job_state
from shared.log import Log
from shared.pipeline.blocks import deal
from shared.pipeline.final_requests import FinalRequests
from shared.pipeline.plan import Step
from shared.pipeline.release_status import Refusals
from shared.pipeline.scheduler import CompletedStep
from shared.pipeline.session import Session
from shared.pipeline.worker_scaling import WorkerScaling

PATIENCE_SECONDS = (
    600.0  # for which a service may be unavailable before control ends with 75, and Kubernetes restarts it
)
STORE_SECONDS = 30.0  # between two checks of the store for what others have committed
PODS_SECONDS = 15.0  # between two checks for Pods whose node does not answer
REJECTED_SECONDS = 60.0  # before a Job that the cluster rejected is created again
CLOCK_SKEW_SECONDS = 60.0  # that the clocks of the nodes and of the API server may differ by

log = Log("control")

Reference = tuple[Stage, str]
"""Identifies a task in a Job, by its stage and key."""


@dataclass
class _JobTask:
    """Holds a task that a Job works on, alone or in a block."""

    step: Step
    task: Task
    job: str = ""
    """Names the Job that holds it, or that could not be created."""
    failed: str | None = None
    """Says why it failed, in the words of Kubernetes and of its Pod; None if it has not failed."""
    not_before: float = 0.0
    """Gives the time, by the monotonic clock, before which a missing Job is not created again."""
    kept_until: float = math.inf
    """Gives the time at which Kubernetes removes its failed Job, in seconds since 1970. If the Job is gone before that, a user has removed it."""

    @property
    def reference(self) -> Reference:
        """Returns the stage and key of its task."""
        return self.task.stage, self.task.key


class KubeExecutor:
    """Runs tasks as Jobs; implements `shared.pipeline.scheduler.Executor`."""

    tick_seconds = 2.0
    patience = PATIENCE_SECONDS

    def __init__(self, release: Release, session: Session) -> None:
        self.release, self.session = release, session
        self.tasks: dict[str, _JobTask] = {}
        """Holds the tasks that are not complete, by step id."""
        selector = jobs_selector(release.name)
        self._jobs, self._pods = (Mirror(release.cluster, kind, selector) for kind in ("jobs", "pods"))
        self._workers = WorkerScaling(release, session, self._pods)
        self.requests = FinalRequests(release, session)
        self._pods_checked = time.monotonic()
        self._cleaned_up = False
        self._store_checked = time.monotonic()
        self._committed = set[str]()
        """Holds the ids of steps whose result the last check of the store found although their Job was not complete."""
        self._failed_at: dict[str, Reference | None] = {}
        """Maps the uid of a failed Job to the task at which it failed; None if all its tasks were committed."""

    def begin(self, step: Step, task: Task) -> None:
        """Accepts the task, whose Job the next `advance` creates."""
        self.tasks[step.id] = _JobTask(step, task)

    def advance(self) -> list[CompletedStep]:
        """Carries out requests, scales the tuning workers, creates missing Jobs, and returns the steps that are complete."""
        self.requests.advance([job for job in self._jobs.objects() if not is_worker(job)])
        found = self._jobs.objects()  # with those for requests, which may do the study's own trainings
        jobs = {job["metadata"]["name"]: job for job in found if not is_worker(job)}
        workers = [job for job in found if is_worker(job)]
        if not self._cleaned_up:
            self._clean_up_jobs(jobs)
            self._workers.begin(workers)
            self._cleaned_up = True
        active = Counter(
            str(job["metadata"]["labels"]["app.kubernetes.io/component"])
            for job in jobs.values()
            if not job_state(job).ended
        )
        active["final"] += self.requests.waiting  # what people ask for comes first when a Job ends
        tuning = [entry.task for entry in self.tasks.values() if entry.task.stage == "tune" and entry.failed is None]
        self._workers.advance(tuning, workers)
        self._replace_lost_pods(found)
        holders = self._holders(jobs.values())
        completed = self._committed_elsewhere(holders)
        completed_ids = {done.step.id for done in completed}
        ready = []
        for entry in (entry for id_, entry in self.tasks.items() if id_ not in completed_ids):
            job = holders.get(entry.reference)
            if job is None:
                ready.append(entry)
                continue
            entry.job, state = job["metadata"]["name"], job_state(job)
            if state.phase == "complete":
                completed.append(CompletedStep(entry.step, self._seconds(entry, job)))
            elif state.phase == "failed" and entry.failed is None and not self.release.begin_again(job):
                self._record_failure([entry], " ".join(filter(None, [state.reason, self.release.failure(job)])))
                entry.kept_until = _kept_until(job)
        completed += self._create_jobs(ready, active)
        for done in completed:  # last, since an error after the removal of a step would lose it
            del self.tasks[done.step.id]
        return completed

    def _replace_lost_pods(self, jobs: Iterable[Object]) -> None:
        """Replaces Pods whose node does not answer; looks for them every `PODS_SECONDS`."""
        if time.monotonic() - self._pods_checked < PODS_SECONDS:
            return
        self._pods_checked = time.monotonic()
        if any(job_state(job).phase == "active" for job in jobs):
            replace_lost_pods(self.release.cluster, self._pods.objects(), self.session.settings.lost_pod_seconds)

    def _holders(self, jobs: Iterable[Object]) -> dict[Reference, Object]:
        """Returns the Job of each task that has one.

        A Job that failed at one task of its block does not hold the tasks after it. If two Jobs hold a task, the one that has
        got further counts.
        """
        phases = ("complete", "active", "suspended", "failed")
        holders = dict[Reference, Object]()
        for job in sorted(jobs, key=lambda job: phases.index(job_state(job).phase)):
            held = held_tasks(job)
            if job_state(job).phase == "failed":
                failed_at = self._find_failure(job, held)
                held = [] if failed_at is None else [failed_at]
            for reference in held:
                holders.setdefault(reference, job)
        return holders

    def _find_failure(self, job: Object, held: Sequence[Reference]) -> Reference | None:
        """Returns the task at which a Job failed: its only one, or the first of its block that is not committed."""
        uid = job["metadata"].get("uid", job["metadata"]["name"])
        if uid not in self._failed_at:
            missing = (reference for reference in held if self.session.artifacts.find(*reference) is None)
            self._failed_at[uid] = held[0] if len(held) == 1 else next(missing, None)
        return self._failed_at[uid]

    def _seconds(self, entry: _JobTask, job: Object) -> float | None:
        """Returns how long the work of a complete Job took, or that of one task of its block."""
        if len(held_tasks(job)) == 1:
            return _job_seconds(job)
        manifest = self.session.artifacts.find(*entry.reference)
        return None if manifest is None else manifest.run.seconds

    def _record_failure(self, entries: Sequence[_JobTask], reason: str) -> None:
        first = entries[0]
        if first.failed != reason:
            log.error(
                f"{_labels(entries)}: its Job {first.job} failed: {reason}; fix it with `helm upgrade`, "
                "or delete that Job (or control's Pod) to try again"
            )
        for entry in entries:
            entry.failed = reason

    def failures(self) -> dict[str, tuple[str, str]]:
        """Returns the reason and the Job's end, which tells one failure from the next, of each task that has failed, by step id.

        Another thread may call it.
        """
        entries = list(self.tasks.items())
        return {id_: (failed, str(entry.kept_until)) for id_, entry in entries if (failed := entry.failed) is not None}

    def refusals(self) -> Refusals:
        """Returns why tasks have failed or have no Job, and why the last worker was refused. Another thread may call it."""
        return Refusals({id_: reason for id_, (reason, _) in self.failures().items()}, self._workers.refusal)

    def end(self) -> None:
        """Leaves the Jobs alone, which continue without control."""

    def _clean_up_jobs(self, jobs: dict[str, Object]) -> None:
        """Deletes Jobs of an earlier control that do not fit the plan.

        Those are Jobs whose key is not in the plan any more since a user changed the study or the chart, those that failed or whose result was
        removed since, and those that have no running Pod and were created from another manifest, such as one with a missing image. The latter
        three are created again. So are deleted those without a running Pod whose results are committed. A running Job that is in the plan, or
        that has just committed its last result, is left alone.
        """
        entries = {entry.reference: entry for entry in self.tasks.values()}
        for name, job in list(jobs.items()):
            active = not job_state(job).ended
            held = held_tasks(job)
            known = [entries[reference] for reference in held if reference in entries]
            for_the_plan = active and SUBMITTED not in job["metadata"]["labels"]
            if for_the_plan and self._left_the_plan(held, entries):
                if not self._is_outdated(job):
                    log.warning("a Job that is not in the plan is left alone, as nobody changed the study", job=name)
                    continue
                log.info("a Job that is not in the plan any more is deleted", job=name)
            elif for_the_plan and not known and not at_work(job):
                log.info("a Job without a running Pod is deleted, as its results are committed", job=name)
            elif known and not active:
                log.info("a Job is created again", job=name, was=job_state(job).phase)
            elif known and not at_work(job) and not self._is_current(job, known[0].task.stage):
                log.info("a Job without a running Pod is created again from its new manifest", job=name)
            else:
                continue
            self.release.cluster.delete("jobs", name)
            del jobs[name]

    def _left_the_plan(self, held: Sequence[Reference], entries: Mapping[Reference, _JobTask]) -> bool:
        """Returns whether one of the tasks is neither in the plan nor committed, or no task can be read."""
        others = (reference for reference in held if reference not in entries)
        return not held or any(self.session.artifacts.find(*other) is None for other in others)

    def _is_current(self, job: Object, stage: Stage) -> bool:
        created_from = job["metadata"].get("annotations", {}).get(MANIFEST)
        return bool(created_from == manifest_digest(self.release.manifests[stage]))

    def _is_outdated(self, job: Object) -> bool:
        """Returns whether a user has changed the study, or the chart, since the Job was created."""
        held = held_tasks(job)
        study = job["metadata"]["labels"].get(STUDY)
        return study != self.release.study or not held or not self._is_current(job, held[0][0])

    def _create_jobs(self, ready: Sequence[_JobTask], active: Counter[str]) -> list[CompletedStep]:
        """Creates Jobs for tasks without one, as many as each stage may have; returns the steps that were committed meanwhile."""
        completed = []
        for stage in dict.fromkeys(entry.task.stage for entry in ready):
            most = parallelism(self.release.manifests[stage])
            if most is not None and active[stage] >= most:
                continue
            waiting = dict[str, _JobTask]()
            for entry in (entry for entry in ready if entry.task.stage == stage):
                if time.monotonic() < entry.not_before:
                    continue
                if self.session.artifacts.find(stage, entry.task.key) is not None:
                    completed.append(CompletedStep(entry.step, None))
                elif (
                    time.time() >= entry.kept_until
                ):  # Kubernetes has removed its failed Job, so no user asked for another try
                    entry.not_before = time.monotonic() + STORE_SECONDS
                else:
                    waiting[entry.task.key] = entry
            tasks = [entry.task for entry in waiting.values()]
            for block in deal(tasks, most, active[stage]):
                self._create_job([waiting[task.key] for task in block], active)
        return completed

    def _create_job(self, block: Sequence[_JobTask], active: Counter[str]) -> None:
        tasks = [entry.task for entry in block]
        name = self.release.job_name(tasks)
        for entry in block:
            entry.job = name
        try:
            if self.release.create_job(self.session.artifacts, tasks):
                log.info(f"{_labels(block)}: begun", job=name)
            for entry in block:
                entry.failed, entry.kept_until = (
                    None,
                    math.inf,
                )  # a user deleted the failed Job, to have it created again
            active[tasks[0].stage] += 1
        except ClusterError as error:  # a policy or a quota, which does not concern the other tasks
            self._record_failure(block, str(error))
            for entry in block:
                entry.not_before = time.monotonic() + REJECTED_SECONDS

    def _committed_elsewhere(self, holders: Mapping[Reference, Object]) -> list[CompletedStep]:
        """Returns the steps that a running Job has committed of its block, or another machine while the Job waits for a node or has failed.

        In the latter case the Job is deleted if nothing is left for it. The store is checked every `STORE_SECONDS`.
        """
        if time.monotonic() - self._store_checked < STORE_SECONDS:
            return []
        self._store_checked = time.monotonic()
        before, self._committed = self._committed, set()
        completed = []
        left: dict[str, bool] = {}  # by the name of a Job that does no work: whether it has a task left
        for id_, entry in self.tasks.items():
            job = holders.get(entry.reference)
            if job is None or job_state(job).phase == "complete":
                continue
            working = job_state(job).phase == "active" and at_work(job)
            if working and len(held_tasks(job)) == 1:
                continue
            manifest, name = self.session.artifacts.find(*entry.reference), job["metadata"]["name"]
            if manifest is not None and working:
                completed.append(CompletedStep(entry.step, manifest.run.seconds))
                continue
            if manifest is not None:
                # a Job whose own Pod has just committed is complete by the next check, and is kept for users to inspect
                self._committed.add(id_)
            done = manifest is not None and id_ in before
            if done:
                completed.append(CompletedStep(entry.step, None))
            left[name] = left.get(name, False) or working or not done
        for name in (name for name, tasks_left in left.items() if not tasks_left):
            self.release.cluster.delete("jobs", name)
        return completed


def _labels(entries: Sequence[_JobTask]) -> str:
    """Returns the label of the first task's step, and how many others there are."""
    return entries[0].step.label + (f" and {len(entries) - 1} more" if len(entries) > 1 else "")


def _kept_until(job: Object) -> float:
    """Returns when Kubernetes removes a failed Job, in seconds since 1970; a minute early, since that is by Kubernetes' clock."""
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    if ttl is None:
        return math.inf
    return datetime.fromisoformat(failed_at(job)).timestamp() + float(ttl) - CLOCK_SKEW_SECONDS


def _job_seconds(job: Object) -> float | None:
    status = job["status"]
    begun, ended = status.get("startTime"), status.get("completionTime")
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds() if begun and ended else None
