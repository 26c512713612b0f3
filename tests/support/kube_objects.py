"""Makes objects as the API of Kubernetes 1.34 returns them, reduced to the fields that we read."""

from __future__ import annotations

from typing import Any


def job(name: str = "study-final-01234567", *conditions: tuple[str, str, str], **spec: Any) -> dict[str, Any]:
    listed = [
        {"type": kind, "status": "True", "reason": reason, "message": message} for kind, reason, message in conditions
    ]
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": {}},
        "spec": spec,
        "status": {"conditions": listed} if listed else {},
    }


def pod(name: str = "study-tune-a", phase: str = "Running", **values: Any) -> dict[str, Any]:
    """Returns a Pod.

    `values` may have `owner` (a Job's uid), `node`, `gpus`, `leaving`, `state` (of its container), `unschedulable`.
    """
    owners = [{"uid": values.get("owner", "uid-j")}]
    metadata: dict[str, Any] = {"name": name, "uid": f"uid-{name}", "labels": {}, "ownerReferences": owners}
    if values.get("leaving"):
        metadata["deletionTimestamp"] = "2999-11-24T12:00:00Z"  # the end of its grace period
    limits = {"nvidia.com/gpu": str(values["gpus"])} if values.get("gpus") else {}
    spec: dict[str, Any] = {"containers": [{"name": "main", "resources": {"limits": limits}}]}
    if values.get("node"):
        spec["nodeName"] = values["node"]
    status: dict[str, Any] = {"phase": phase}
    if said := values.get("unschedulable"):
        status["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}]
    if state := values.get("state"):
        status["containerStatuses"] = [
            {"name": "main", "image": "registry/tailfill/final:1", "state": state, **values.get("more", {})}
        ]
    return {"metadata": metadata, "spec": spec, "status": status}
