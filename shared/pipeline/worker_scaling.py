"""Gives the tuning workers of a release GPUs while there are trials for them, and takes the GPUs back when there are none.

A worker Pod is created with a scheduling gate, with which it holds no GPU. The gate is removed while there is work, and a Pod without work is
deleted, so that a new one with a gate replaces it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from shared.config.stages import TuneConfig
from shared.config.task import Task
from shared.errors import UnavailableError
from shared.kube.api import Cluster
from shared.kube.manifests import workers_selector
from shared.kube.workers import HOST_LETTERS, Demand, IdleSince, decide, lift_gate
from shared.log import Log
from shared.pipeline.search_status import name_of_search
from shared.pipeline.session import Session
from shared.search.identity import searches_of
from shared.search.monitor import SearchSnapshot, read_searches

log = Log("control")


class WorkerScaling:
    """Manages the worker Pods of `deployment/<release>-tune`, which users scale."""

    def __init__(self, cluster: Cluster, release: str, session: Session) -> None:
        self._cluster, self._release, self._session = cluster, release, session
        self._idle = IdleSince()
        self._last_warning: str | None = None

    def scale_once(self) -> None:
        """Scales the Deployment to `search.workers` replicas the first time that control sees it; afterwards users scale it."""
        configs = (step.config for step in self._session.steps)
        workers = max((config.search.workers for config in configs if isinstance(config, TuneConfig)), default=0)
        name = f"{self._release}-tune"
        scale = self._cluster.get("deployments", f"{name}/scale")
        if scale is None or not workers:
            return
        artifacts = self._session.artifacts
        marker = f"{artifacts.study}/cluster/{scale['metadata']['uid']}-scaled"
        if artifacts.store.exists(marker):
            return
        # 1 is the Deployment's initial value; if a user has scaled it to 1, that looks the same
        if scale["spec"].get("replicas", 0) == 1 != workers:
            self._cluster.patch(
                "deployments", f"{name}/scale", [{"op": "replace", "path": "/spec/replicas", "value": workers}]
            )
            log.info("tuning workers scaled, as search.workers says", deployment=name, replicas=workers)
        artifacts.store.create(marker, b"")

    def advance(self, tasks: Sequence[Task]) -> None:
        """Removes the gates of as many Pods as the searches of these tasks have trials for, and replaces Pods without work."""
        cluster = self._cluster
        pods = cluster.list("pods", workers_selector(self._release))
        if not pods:
            return
        try:
            demands = self._demands(tasks, [pod["metadata"]["name"] for pod in pods])
        except UnavailableError as error:
            if str(error) != self._last_warning:
                log.warning("tuning workers stay as they are", reason=str(error))
            self._last_warning = str(error)
            return
        self._last_warning = None
        by_name = {pod["metadata"]["name"]: pod for pod in pods}
        decision = decide(pods, demands)
        for name, demand in decision.begin:
            if lift_gate(cluster, by_name[name], demand):
                log.info("worker has work", pod=name, experiment=demand.task.experiment)
        for name in [*decision.over, *self._idle.too_long(decision.idle, time.monotonic())]:
            cluster.delete("pods", name)
            log.info("worker without work is replaced by one that waits without a GPU", pod=name)

    def _demands(self, tasks: Sequence[Task], pods: Collection[str]) -> list[Demand]:
        if not tasks:
            return []
        session = self._session
        overviews = read_searches(session.database_url, searches_of(session.study.name))
        by_name = {overview.name: overview for overview in overviews}
        named = [(task, by_name.get(name_of_search(task, session.artifacts))) for task in tasks]
        return [_demand(task, overview, pods) for task, overview in named if overview is not None]


def _demand(task: Task, overview: SearchSnapshot, pods: Collection[str]) -> Demand:
    """Returns how many workers a search needs: for trials that wait, for those that will wait since their worker is lost, and for
    those that the Pods hold.

    Trials that workers outside this release hold need no Pod.
    """
    busy = {holder.split("/")[0] for holder in overview.holders} & {name[:HOST_LETTERS] for name in pods}
    waiting = 0 if overview.closed is not None else overview.queued + overview.stale
    return Demand(task, waiting + len(busy), busy)
