"""What Jobs and Pods say of themselves: where they stand, and in one line why they do not move."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from shared.kube.api import Object
from shared.kube.manifests import GATE

PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


@dataclass(frozen=True)
class JobState:
    """Where a Job stands."""

    phase: Literal["active", "suspended", "complete", "failed"]
    reason: str = ""
    """Of a failed one: Kubernetes' words."""


def job_state(job: Object) -> JobState:
    """Of its conditions; a Job that is failing still has Pods, and counts as failed when they are gone."""
    conditions = {c["type"]: c for c in job.get("status", {}).get("conditions") or () if c["status"] == "True"}
    if "Complete" in conditions:
        return JobState("complete")
    if failed := conditions.get("Failed"):
        return JobState("failed", f"{failed.get('reason', '')}: {failed.get('message', '')}".strip(": "))
    return JobState("suspended" if job["spec"].get("suspend") else "active")


def at_work(job: Object) -> bool:
    """Whether a Pod of it runs, or has ended well; one that failed may wait for a node, or an image, to be tried again."""
    return any(job.get("status", {}).get(count) for count in ("ready", "succeeded"))


def gated(pod: Object) -> bool:
    """Whether it waits for work, with no node and no GPU."""
    return any(gate["name"] == GATE for gate in pod["spec"].get("schedulingGates") or ())


def leaving(pod: Object) -> bool:
    """Whether it is being deleted, or has ended."""
    return "deletionTimestamp" in pod["metadata"] or pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def gpus_held(pods: Iterable[Object]) -> int:
    """GPUs (a device plugin's resource: one with a vendor's name) of Pods that have a node."""
    here = [pod for pod in pods if pod["spec"].get("nodeName") and not leaving(pod)]
    limits = (c.get("resources", {}).get("limits") or {} for pod in here for c in pod["spec"]["containers"])
    return sum(int(count) for limit in limits for name, count in limit.items() if "/" in name)


def pod_reason(pod: Object) -> str | None:
    """Why a Pod does not work, or None where it does, has ended, or waits for work."""
    if leaving(pod) or gated(pod):
        return None
    status = pod.get("status", {})
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _unschedulable(condition.get("message", condition.get("reason", "")))
    for container in status.get("containerStatuses") or ():
        waiting = container.get("state", {}).get("waiting")
        if not waiting or waiting.get("reason") in ("ContainerCreating", "PodInitializing", None):
            continue
        if waiting["reason"] in PULL:
            return (
                f"the image {container['image']} cannot be pulled ({_short(waiting.get('message', waiting['reason']))})"
            )
        if waiting["reason"] == "CrashLoopBackOff":
            return f"it ended and waits to be started again: {termination(container) or 'see its log'}"
        return f"{waiting['reason']}: {_short(waiting.get('message', ''))}"
    return None


def _unschedulable(message: str) -> str:
    short = _short(message)
    if gpu := re.search(r"Insufficient ([\w.-]+/[\w-]+)", message):
        return f"no node has a free {gpu[1]} ({short})"
    return f"no node takes it ({short})"


def failure(job: Object, pods: Sequence[Object]) -> str:
    """What the Pods of a failed Job said last; those of an earlier Job of the same name are left out."""
    uid = job["metadata"].get("uid")
    own = [pod for pod in pods if any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences") or ())]
    containers = [c for pod in own for c in pod.get("status", {}).get("containerStatuses") or ()]
    ended = [c for c in containers if "terminated" in c.get("state", {})]
    ended.sort(key=lambda container: str(container["state"]["terminated"].get("finishedAt")))
    return termination(ended[-1]) if ended else ""


def termination(container: Object) -> str:
    """The error in a container's last words (its log's end, of which Kubernetes keeps 2 KiB), and its exit code."""
    for state in (container.get("state", {}), container.get("lastState", {})):
        if ended := state.get("terminated"):
            said = [text for line in str(ended.get("message", "")).splitlines() if (text := _error(line))]
            return (
                f"exit {ended.get('exitCode')}: {said[-1]}"
                if said
                else f"exit {ended.get('exitCode')}, {ended.get('reason')}"
            )
    return ""


def _error(line: str) -> str:
    try:
        value = json.loads(line)
    except ValueError:
        return ""
    return str(value.get("event", "")) if isinstance(value, dict) and value.get("level") == "error" else ""


def job_reason(job: Object, pods: Sequence[Object], events: Sequence[Object]) -> str | None:
    """Why a Job's work does not move, or None where it does."""
    state = job_state(job)
    if state.phase == "complete":
        return None
    if state.phase == "failed":
        said = failure(job, pods)
        return f"failed ({state.reason})" + (f": {said}" if said else "")
    if state.phase == "suspended":
        return "is suspended: its queue has not admitted it yet"
    if reasons := [reason for pod in pods if (reason := pod_reason(pod))]:
        return reasons[0]
    if not any(not leaving(pod) for pod in pods):
        return refused(events)
    return None


def mount_reason(events: Sequence[Object]) -> str | None:
    """Why a Pod that has a node does not begin: a volume that another node holds, a Secret or a claim that there is not."""
    failed = [event for event in events if event.get("reason") in ("FailedMount", "FailedAttachVolume")]
    return f"a volume cannot be mounted: {_short(_newest(failed).get('message', ''))}" if failed else None


def refused(events: Sequence[Object]) -> str | None:
    """Why no Pod could be made: a quota, Pod Security, a missing service account."""
    made = [event for event in events if event.get("reason") == "FailedCreate"]
    if not made:
        return None
    return f"no Pod can be made: {_short(_newest(made).get('message', ''))}"


def _newest(events: Sequence[Object]) -> Object:
    return max(events, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
