"""Assigns searches to tuning workers, which are the Pods of a Deployment that people scale.

A Pod starts behind a scheduling gate, without a node or a GPU. Its gate is lifted, and it gets a task, when a search has a trial for it. It
is deleted when the search has none left, and the Deployment creates a gated Pod in its place.
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
IDLE_SECONDS = 10.0  # that a worker may have no trial: the next step of a sequential search begins within two


@dataclass(frozen=True)
class Demand:
    """Describes a running search and the workers that it needs."""

    task: Task
    trials: int
    """Counts the trials that a worker could run now or is running."""
    busy: Collection[str] = ()
    """Names the hosts that run a trial; a Pod's host has the Pod's name."""

    @property
    def label(self) -> str:
        """Returns the label of its workers."""
        return self.task.key[:KEY_LETTERS]


@dataclass
class Decision:
    """Says what to do with the Pods."""

    begin: list[tuple[str, Demand]]
    """Lists the Pods whose gates to lift, and the search of each."""
    idle: list[str]
    """Lists the Pods of a search that now has fewer trials than workers, and may soon have more."""
    over: list[str]
    """Lists the Pods of searches that have ended."""


def decide(pods: Sequence[Object], demands: Sequence[Demand]) -> Decision:
    """Decides what to do with the Pods: gated ones go to the search with the fewest workers that has trials waiting."""
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


def lift_gate(cluster: Cluster, pod: Object, demand: Demand) -> bool:
    """Gives a gated Pod its task and lifts its gate, in one step; returns False if the Pod was deleted or changed meanwhile."""
    metadata = pod["metadata"]
    gate = [found["name"] for found in pod["spec"]["schedulingGates"]].index(GATE)  # others' gates stay
    operations = [
        {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
        {
            "op": "add",
            "path": "/metadata/annotations",
            "value": {**metadata.get("annotations", {}), TASK: task_annotation([demand.task])},
        },
        {"op": "add", "path": f"/metadata/labels/{KEY.replace('/', '~1')}", "value": demand.label},
        {"op": "test", "path": f"/spec/schedulingGates/{gate}/name", "value": GATE},
        {"op": "remove", "path": f"/spec/schedulingGates/{gate}"},
    ]
    return cluster.patch("pods", metadata["name"], operations)


class IdleSince:
    """Remembers since when Pods have been idle without interruption."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def too_long(self, idle: Sequence[str], now: float) -> list[str]:
        """Returns those of the idle Pods that have been idle for IDLE_SECONDS; `now` is the time of a monotonic clock."""
        self._since = {name: self._since.get(name, now) for name in idle}
        return [name for name, since in self._since.items() if now - since >= IDLE_SECONDS]
