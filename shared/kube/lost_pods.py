"""Replaces Pods whose node does not answer.

A Job makes no new Pod before the old one has ended (its podFailurePolicy implies that), which a Pod on a dead node never does. So after a while control
says that it has failed. The old Pod may still be running: it changes nothing, since results are committed once, each attempt saves checkpoints of its
own (`shared.artifacts.attempts`), and a trial belongs to whoever holds its lease.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from shared.kube.api import Cluster, Object
from shared.kube.states import overdue_seconds
from shared.log import Log, duration

log = Log("control")


def replace_lost_pods(cluster: Cluster, pods: Iterable[Object], after_seconds: float) -> None:
    """Marks each Pod that should have ended `after_seconds` ago as failed, and deletes it, so that its Job makes another one."""
    now = datetime.now(UTC)
    for pod in pods:
        overdue = overdue_seconds(pod, now)
        if not overdue or overdue < after_seconds:
            continue
        name, node = pod["metadata"]["name"], pod["spec"].get("nodeName")
        log.warning("a Pod is replaced: its node does not answer", pod=name, node=node, overdue=duration(overdue))
        # deleting alone would not do: the Job's finalizer stays until the Pod has ended
        if cluster.patch("pods", f"{name}/status", _as_failed(pod)):
            cluster.delete("pods", name, grace_seconds=0)


def _as_failed(pod: Object) -> list[Object]:
    """Returns the patch of a Pod's status; as a disruption, the failure does not count against the Job's retries."""
    present = pod["status"].get("conditions") or []
    lost = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "NodeDoesNotAnswer",
        "message": "tailfill-control: its node does not answer",
        "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    conditions = [condition for condition in present if condition["type"] != "DisruptionTarget"] + [lost]
    return [
        {"op": "test", "path": "/metadata/uid", "value": pod["metadata"]["uid"]},
        {"op": "add", "path": "/status/conditions", "value": conditions},
        {"op": "add", "path": "/status/phase", "value": "Failed"},
    ]
