"""Which tuning workers get work: the Pods of a Deployment that people scale.

A Pod begins behind a scheduling gate, on no node and with no GPU. It is let through with the task of a search that has a trial for it, and
deleted when it has none any more; the Deployment puts a gated one in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from shared.config.task import Task
from shared.kube.api import Cluster, Object
from shared.kube.manifests import GATE, KEY, KEY_LETTERS, TASK, task_annotation
from shared.kube.states import gated, leaving

HOST_LETTERS = 63  # of a Pod's name, in its host's
IDLE_SECONDS = 10.0  # that a worker may be without a trial: the next step of a sequential search begins within two


@dataclass(frozen=True)
class Demand:
    """A search that is under way."""

    task: Task
    trials: int
    """Which a worker could run now or is running."""
    busy: Collection[str] = ()
    """Hosts that hold a trial: a Pod's host is named after it."""

    @property
    def label(self) -> str:
        """Its workers' label."""
        return self.task.key[:KEY_LETTERS]


@dataclass
class Decision:
    """What is to be done with the Pods."""

    begin: list[tuple[str, Demand]]
    """Pods to let through, and for which search."""
    idle: list[str]
    """Pods of a search that has fewer trials than workers now, and may have more in a moment."""
    over: list[str]
    """Pods of no search that is under way."""


def decide(pods: Sequence[Object], demands: Sequence[Demand]) -> Decision:
    """Gated Pods go where the fewest are and trials wait."""
    by_label = {demand.label: demand for demand in demands}
    at_work: dict[str, list[str]] = {demand.label: [] for demand in demands}
    waiting, idle, over = list[str](), list[str](), list[str]()
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        name = pod["metadata"]["name"]
        if leaving(pod):
            continue
        label = pod["metadata"].get("labels", {}).get(KEY)
        if gated(pod):
            waiting.append(name)
        elif label in at_work:
            at_work[label].append(name)
        else:
            over.append(name)
    for label, names in at_work.items():
        demand = by_label[label]
        spare = len(names) - demand.trials
        idle += [name for name in names if name[:HOST_LETTERS] not in demand.busy][: max(spare, 0)]
    begin = list[tuple[str, Demand]]()
    counts = Counter({label: len(names) for label, names in at_work.items()})
    for name in waiting:
        open_ = [demand for demand in demands if counts[demand.label] < demand.trials]
        if not open_:
            break
        chosen = min(open_, key=lambda demand: counts[demand.label])
        counts[chosen.label] += 1
        begin.append((name, chosen))
    return Decision(begin, idle, over)


def let_through(cluster: Cluster, pod: Object, demand: Demand) -> bool:
    """Gives a gated Pod its task and lifts the gate, in one step; False where the Pod is gone or somebody was faster."""
    metadata = pod["metadata"]
    gate = [found["name"] for found in pod["spec"]["schedulingGates"]].index(GATE)  # others' gates stay
    operations = [
        {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
        {
            "op": "add",
            "path": "/metadata/annotations",
            "value": {**metadata.get("annotations", {}), TASK: task_annotation(demand.task)},
        },
        {"op": "add", "path": f"/metadata/labels/{KEY.replace('/', '~1')}", "value": demand.label},
        {"op": "test", "path": f"/spec/schedulingGates/{gate}/name", "value": GATE},
        {"op": "remove", "path": f"/spec/schedulingGates/{gate}"},
    ]
    return cluster.patch("pods", metadata["name"], operations)


class IdleSince:
    """Since when Pods have been idle without a break."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def too_long(self, idle: Sequence[str], now: float) -> list[str]:
        """Those of them that have been so for IDLE_SECONDS; `now` by a monotonic clock."""
        self._since = {name: self._since.get(name, now) for name in idle}
        return [name for name, since in self._since.items() if now - since >= IDLE_SECONDS]
