"""Makes the tuning workers of a release while there are trials for them, and ends those for which there are none.

A worker is a Job. It reads from a ConfigMap which searches are open, goes from one to the next, and ends by itself when all of them are closed,
so that no GPU is held for want of control. How many workers there may be is the number to which users have scaled
`deployment/<release>-tune`, which is paused and has no Pods.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from shared.config.stages import TuneConfig
from shared.config.task import Task, block_json
from shared.errors import UnavailableError
from shared.kube.api import Object
from shared.kube.errors import ClusterError
from shared.kube.manifests import MANIFEST, ROLE, WORKER, is_worker
from shared.kube.mirror import Mirror
from shared.kube.release import Release
from shared.kube.states import job_state, leaving
from shared.kube.workers import IdleSince, decide
from shared.log import Log
from shared.pipeline.search_status import COORDINATOR_SECONDS, name_of_search
from shared.pipeline.session import Session
from shared.search.connections import workers_limit
from shared.search.identity import searches_of
from shared.search.monitor import SearchSnapshot, read_searches

REQUESTS = 8  # to the cluster at once: one after the other, hundreds of Jobs would take a minute on a busy API server
REFUSED_SECONDS = 30.0  # before a worker that the cluster refused is created again
LIMIT_SECONDS = 60.0  # between two looks at the number of connections that PostgreSQL allows

log = Log("control")


@dataclass(frozen=True)
class Demand:
    """Describes a search that has begun, and the workers that it could use."""

    task: Task
    open: bool
    """Says whether it hands out trials."""
    trials: int
    """Counts the trials that workers of this release could run now or are running."""
    busy: Collection[str]
    """Names the Jobs of this release that run one."""


class WorkerScaling:
    """Manages the Jobs of tuning workers."""

    def __init__(self, release: Release, session: Session, pods: Mirror) -> None:
        """Takes the copy of the Pods of the release's Jobs."""
        self._release, self._session, self._pods = release, session, pods
        self._deployment = Mirror(release.cluster, "deployments", field_selector=f"metadata.name={release.name}-tune")
        self._idle = IdleSince()
        self._last_warning: str | None = None
        self._written: str | None = None
        """Holds the tasks of the open searches as they were last written for the workers."""
        self.refusal: str | None = None
        """Says why the cluster refused the last worker; None if it did not, or if none is needed."""
        self._not_before = 0.0
        self._limit: int | None = None
        """Holds how many workers PostgreSQL has connections for; None if a pooler is in between."""
        self._limit_read = -float("inf")
        self._held: tuple[int, int] | None = None
        """Holds the numbers of workers that users and PostgreSQL allowed when they were last logged."""
        self._failed = set[str]()
        """Holds the uids of the failed Jobs that were logged."""

    def begin(self, jobs: Sequence[Object]) -> None:
        """Prepares the workers when control starts.

        It scales the Deployment to `search.workers` replicas the first time that control sees it, and ends workers of another manifest
        or study; their trials go on from their checkpoints. It also deletes the ReplicaSets of an earlier chart's Deployment, whose Pods
        would hold GPUs.
        """
        cluster, name = self._release.cluster, self._release.name
        for old in cluster.list("replicasets", f"app.kubernetes.io/instance={name},{ROLE}={WORKER}"):
            cluster.delete("replicasets", old["metadata"]["name"])
            log.info("Pods of an earlier chart are deleted", replicaset=old["metadata"]["name"])
        current = self._release.worker_digest(self._session.study.name)
        for job in jobs:
            if job["metadata"].get("annotations", {}).get(MANIFEST) != current:
                cluster.delete("jobs", job["metadata"]["name"])
                log.info("a worker of an earlier manifest is ended", job=job["metadata"]["name"])
        self._scale_once()

    def _scale_once(self) -> None:
        configs = (step.config for step in self._session.steps)
        workers = max((config.search.workers for config in configs if isinstance(config, TuneConfig)), default=0)
        deployment = f"{self._release.name}-tune"
        scale = self._release.cluster.get("deployments", f"{deployment}/scale")
        if scale is None or not workers:
            return
        artifacts = self._session.artifacts
        marker = f"{artifacts.study}/cluster/{scale['metadata']['uid']}-scaled"
        if artifacts.store.exists(marker):
            return
        # 1 is the Deployment's initial value; if a user has scaled it to 1, that looks the same
        if scale["spec"].get("replicas", 0) == 1 != workers:
            operation = {"op": "replace", "path": "/spec/replicas", "value": workers}
            self._release.cluster.patch("deployments", f"{deployment}/scale", [operation])
            log.info("tuning workers scaled, as search.workers says", deployment=deployment, replicas=workers)
        artifacts.store.create(marker, b"")

    def advance(self, tasks: Sequence[Task], jobs: Sequence[Object]) -> None:
        """Creates workers for the searches of these tasks, and ends those that have no trial or are more than users allow.

        `jobs` are the workers' Jobs as they are now.
        """
        alive = [job for job in jobs if not job_state(job).ended]
        self._log_failures(jobs)
        if not tasks and not alive:
            return
        demands = self._demands(tasks, self._job_of_each_pod() if alive else {})
        if tasks and demands is not None:
            self._read_limit(len(tasks))
        allowed = self._within_connections(
            sum(int(found["spec"].get("replicas", 0)) for found in self._deployment.objects())
        )
        trials = None if demands is None else sum(demand.trials for demand in demands)
        decision = decide(jobs, allowed, trials, {name for demand in demands or () for name in demand.busy})
        if demands is not None:
            self._write([demand.task for demand in demands if demand.open])
        names = {str(job["metadata"]["name"]) for job in jobs}
        with ThreadPoolExecutor(REQUESTS) as pool:
            self._delete(pool, decision.over, "fewer are allowed, by the Deployment or by PostgreSQL's connections")
            self._delete(pool, self._idle.too_long(decision.idle, time.monotonic()), "there is no trial for it")
            self._create(pool, decision.create, names)

    def _read_limit(self, searches: int) -> None:
        """Reads how many workers PostgreSQL has connections for; keeps the number if it is unavailable."""
        if time.monotonic() - self._limit_read < LIMIT_SECONDS:
            return
        try:
            self._limit = workers_limit(self._session.database_url, searches)
            self._limit_read = time.monotonic()
        except UnavailableError as error:
            log.warning("the number of connections that PostgreSQL allows cannot be read", reason=str(error))

    def _within_connections(self, allowed: int) -> int:
        """Returns how many of the workers that users allow PostgreSQL has connections for, and logs if these are fewer."""
        if self._limit is None or self._limit >= allowed:
            self._held = None
            return allowed
        if self._held != (allowed, self._limit):
            log.warning(
                "fewer tuning workers than the Deployment allows, as PostgreSQL has no more connections; raise its max_connections "
                "(postgresql.maxConnections for the chart's own), or put PgBouncer before it",
                allowed=allowed,
                connections_for=self._limit,
            )
            self._held = (allowed, self._limit)
        return self._limit

    def _delete(self, pool: Executor, names: Sequence[str], reason: str) -> None:
        for name, _ in zip(names, pool.map(partial(self._release.cluster.delete, "jobs"), names), strict=True):
            log.info(f"a worker ends: {reason}", job=name)

    def _create(self, pool: Executor, numbers: Sequence[int], names: Collection[str]) -> None:
        if numbers and time.monotonic() < self._not_before:
            return
        self.refusal = None
        for first in range(0, len(numbers), REQUESTS):
            refusals = list(pool.map(partial(self._create_worker, names), numbers[first : first + REQUESTS]))
            if refusal := next(filter(None, refusals), None):
                log.error(refusal)
                self.refusal = refusal
                self._not_before = time.monotonic() + REFUSED_SECONDS
                return

    def _create_worker(self, names: Collection[str], number: int) -> str | None:
        """Creates a worker's Job in place of one of its name that has ended; returns why the cluster refuses it, or None."""
        name = self._release.worker_name(number)
        if name in names:
            self._release.cluster.delete("jobs", name)
        try:
            if self._release.create_worker(number, self._session.study.name):
                log.info("a worker begins", job=name)
        except ClusterError as error:  # a policy or a quota, which does not concern the stages' Jobs
            return f"{name}: {error}"
        return None

    def _write(self, tasks: Sequence[Task]) -> None:
        """Writes the tasks of the open searches for the workers, if they have changed."""
        text = block_json(tasks)
        if text == self._written:
            return
        if not self._release.write_searches(text):
            raise ClusterError(
                f"configmap {self._release.name}-searches: does not exist; install the chart of this version"
            )
        self._written = text

    def _log_failures(self, jobs: Sequence[Object]) -> None:
        failed = {str(job["metadata"].get("uid")): job for job in jobs if job_state(job).phase == "failed"}
        for uid in failed.keys() - self._failed:
            job = failed[uid]
            reason = " ".join(filter(None, [job_state(job).reason, self._release.failure(job)]))
            log.error(f"{job['metadata']['name']}: failed: {reason}; it is replaced later, or at once if you delete it")
        self._failed = set(failed)

    def _job_of_each_pod(self) -> Mapping[str, str]:
        """Returns the Job of each worker's Pod, by the Pod's name, which its host has too."""
        pods = [pod for pod in self._pods.objects() if is_worker(pod) and not leaving(pod)]
        return {pod["metadata"]["name"]: pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] for pod in pods}

    def _demands(self, tasks: Sequence[Task], pods: Mapping[str, str]) -> list[Demand] | None:
        """Returns the demand of each task's search that has begun; None if PostgreSQL is unavailable."""
        if not tasks:
            return []
        session = self._session
        try:
            snapshots = read_searches(session.database_url, searches_of(session.study.name))
        except UnavailableError as error:
            if str(error) != self._last_warning:
                log.warning("no tuning worker begins", reason=str(error))
            self._last_warning = str(error)
            return None
        self._last_warning = None
        by_name = {snapshot.name: snapshot for snapshot in snapshots}
        named = [(task, by_name.get(name_of_search(task, session.artifacts))) for task in tasks]
        return [_demand(task, snapshot, pods) for task, snapshot in named if snapshot is not None]


def _demand(task: Task, snapshot: SearchSnapshot, pods: Mapping[str, str]) -> Demand:
    """Returns how many workers a search could use: one for each trial that is still to be finished, except those that others run.

    A search queues only some of its trials at a time, and its coordinator queues more as they are claimed. So without a coordinator, only
    those that are queued count, and those that will be since their worker is lost.
    """
    holders = {holder.split("/")[0] for holder in snapshot.holders}
    busy = {pods[host] for host in holders & pods.keys()}
    if snapshot.closed is not None:
        return Demand(task, False, len(busy), busy)
    waiting = snapshot.queued + snapshot.stale
    if snapshot.ticked_seconds < COORDINATOR_SECONDS:
        others = max(snapshot.running - len(busy), 0)
        waiting = max(waiting, snapshot.left - len(busy) - others)
    return Demand(task, True, waiting + len(busy), busy)
