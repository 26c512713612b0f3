"""The tuning workers of a release: let through to a GPU while there are trials for them, and replaced by waiting ones when there are none."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from jobs.opened import Opened
from jobs.progress import name_of_search
from shared.config.task import Task
from shared.errors import UnavailableError
from shared.kube.api import Cluster
from shared.kube.manifests import workers_selector
from shared.kube.workers import HOST_LETTERS, Demand, IdleSince, decide, let_through
from shared.log import Log
from shared.search.identity import searches_of
from shared.search.monitor import SearchSnapshot, read_searches

log = Log("control")


class Workers:
    """The Pods of `deployment/<release>-tune`, which people scale."""

    def __init__(self, cluster: Cluster, release: str, opened: Opened) -> None:
        self._cluster, self._release, self._opened = cluster, release, opened
        self._idle = IdleSince()
        self._silent: str | None = None

    def scale_once(self) -> None:
        """Brings the workers to `search.workers`, the first time that control sees their Deployment; afterwards people scale it."""
        searches = (step for step in self._opened.steps if step.stage == "tune")
        workers = max((int(step.config["search"]["workers"]) for step in searches), default=0)
        name = f"{self._release}-tune"
        scale = self._cluster.get("deployments", f"{name}/scale")
        if scale is None or not workers:
            return
        artifacts = self._opened.artifacts
        marker = f"{artifacts.study}/cluster/{scale['metadata']['uid']}-scaled"
        if artifacts.store.exists(marker):
            return
        # what a Deployment begins with; whoever scales that to 1 leaves no trace
        if scale["spec"].get("replicas", 0) == 1 != workers:
            self._cluster.patch(
                "deployments", f"{name}/scale", [{"op": "replace", "path": "/spec/replicas", "value": workers}]
            )
            log.info("tuning workers scaled, as search.workers says", deployment=name, replicas=workers)
        artifacts.store.create(marker, b"")

    def advance(self, tasks: Sequence[Task]) -> None:
        """Gives the Pods work that the searches of these tasks have."""
        cluster = self._cluster
        pods = cluster.list("pods", workers_selector(self._release))
        if not pods:
            return
        try:
            demands = self._demands(tasks, [pod["metadata"]["name"] for pod in pods])
        except UnavailableError as error:
            if str(error) != self._silent:
                log.warning("tuning workers stay as they are", reason=str(error))
            self._silent = str(error)
            return
        self._silent = None
        by_name = {pod["metadata"]["name"]: pod for pod in pods}
        decision = decide(pods, demands)
        for name, demand in decision.begin:
            if let_through(cluster, by_name[name], demand):
                log.info("worker has work", pod=name, experiment=demand.task.experiment)
        for name in [*decision.over, *self._idle.too_long(decision.idle, time.monotonic())]:
            cluster.delete("pods", name)
            log.info("worker without work is replaced by one that waits, with no GPU", pod=name)

    def _demands(self, tasks: Sequence[Task], pods: Collection[str]) -> list[Demand]:
        if not tasks:
            return []
        found = {
            search.name: search
            for search in read_searches(self._opened.database_url, searches_of(self._opened.study.name))
        }
        named = [(task, found.get(name_of_search(task, self._opened.artifacts))) for task in tasks]
        return [_demand(task, search, pods) for task, search in named if search is not None]


def _demand(task: Task, search: SearchSnapshot, pods: Collection[str]) -> Demand:
    """Trials that wait (or will, since their worker is lost), and those that Pods of ours hold: not those of another machine's workers."""
    busy = {holder.split("/")[0] for holder in search.holders} & {name[:HOST_LETTERS] for name in pods}
    waiting = 0 if search.closed is not None else search.queued + search.stale
    return Demand(task, waiting + len(busy), busy)
