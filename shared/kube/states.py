"""Reads the status of Jobs and Pods: their state, and in one line why they do not make progress."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from shared.kube.api import Object
from shared.kube.queues import queue_reason
from shared.log import duration

CRASH_LOOP_SECONDS = 900.0  # for which a container must run before the end of the one before it is no news any more
ENDING_SECONDS = 30.0  # for which a Pod may be late to end: its node is busy
PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


@dataclass(frozen=True)
class JobState:
    """Holds the state of a Job."""

    phase: Literal["active", "suspended", "complete", "failed"]
    reason: str = ""
    """Says why it failed, in Kubernetes' words; empty if it did not."""

    @property
    def ended(self) -> bool:
        """Returns whether it is complete or has failed."""
        return self.phase in ("complete", "failed")


def job_state(job: Object) -> JobState:
    """Returns a Job's state from its conditions; a failing Job counts as failed when its Pods have ended."""
    conditions = {c["type"]: c for c in job.get("status", {}).get("conditions") or () if c["status"] == "True"}
    if "Complete" in conditions:
        return JobState("complete")
    if failed := conditions.get("Failed"):
        return JobState("failed", f"{failed.get('reason', '')}: {failed.get('message', '')}".strip(": "))
    return JobState("suspended" if job["spec"].get("suspend") else "active")


def failed_at(job: Object) -> str:
    """Returns when a failed Job failed, as an ISO 8601 time."""
    (failed,) = (condition for condition in job["status"]["conditions"] if condition["type"] == "Failed")
    return str(failed["lastTransitionTime"])


def at_work(job: Object) -> bool:
    """Returns whether a Pod of the Job runs or has succeeded; the next Pod after a failed one may wait for a node or an image."""
    return any(job.get("status", {}).get(count) for count in ("ready", "succeeded"))


def pods_of(job: str, pods: Iterable[Object]) -> list[Object]:
    """Returns those of the Pods that belong to the Job of this name."""
    return [pod for pod in pods if pod["metadata"]["labels"].get("batch.kubernetes.io/job-name") == job]


def leaving(pod: Object) -> bool:
    """Returns whether a Pod is being deleted or has ended."""
    return "deletionTimestamp" in pod["metadata"] or pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def overdue_seconds(pod: Object, now: datetime) -> float:
    """Returns for how many seconds a Pod should have ended, its grace period included; 0 if it has, or need not.

    A Pod that was deleted stays for ever if its node does not answer, as nobody can say that its containers have ended.
    """
    due = pod["metadata"].get("deletionTimestamp")
    if due is None or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0.0
    return max((now - datetime.fromisoformat(due)).total_seconds(), 0.0)


def _node_silent(pod: Object) -> str | None:
    """Returns why a Pod cannot be reached, or None: it should have ended, or Kubernetes has marked it as not ready while its container is."""
    node, status = pod["spec"].get("nodeName"), pod.get("status", {})
    overdue = overdue_seconds(pod, datetime.now(UTC))
    if overdue >= ENDING_SECONDS:
        return (
            f"its node {node} does not answer: the Pod {pod['metadata']['name']} should have ended {duration(overdue)} ago; "
            "control replaces it after control.lostPodSeconds"
        )
    ready = {condition["type"]: condition["status"] for condition in status.get("conditions") or ()}.get("Ready")
    containers = status.get("containerStatuses") or ()
    if status.get("phase") == "Running" and ready == "False" and containers and all(c.get("ready") for c in containers):
        return (
            f"its node {node} does not answer; Kubernetes tells its Pods to end after the time that their tolerations say, "
            "by default five minutes"
        )
    return None


def gpus_held(pods: Iterable[Object]) -> int:
    """Returns the number of GPUs (resources with a vendor's name, of a device plugin) of Pods that have a node."""
    here = [pod for pod in pods if pod["spec"].get("nodeName") and not leaving(pod)]
    limits = (c.get("resources", {}).get("limits") or {} for pod in here for c in pod["spec"]["containers"])
    return sum(int(count) for limit in limits for name, count in limit.items() if "/" in name)


def pod_reason(pod: Object) -> str | None:
    """Returns why a Pod does not run or cannot be reached, or None if it runs or has ended."""
    if silent := _node_silent(pod):
        return silent
    if leaving(pod):
        return None
    status = pod.get("status", {})
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _unschedulable(condition.get("message", condition.get("reason", "")))
    for container in status.get("containerStatuses") or ():
        if reason := _restart_reason(status, container):
            return reason
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


def _restart_reason(status: Object, container: Object) -> str | None:
    """Returns why a container that Kubernetes starts again and again is not ready, between two of its back-offs."""
    state, before = container.get("state", {}), container.get("lastState", {})
    if status.get("phase") != "Running" or "waiting" in state or not _failed(state, before):
        return None
    if not container.get("ready"):
        return f"it ended and is started again: {termination(container)}"
    # it may end again for the same reason: control waits ten minutes for a service before it does
    since = (state.get("running") or {}).get("startedAt")
    seconds = None if since is None else (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()
    if seconds is None or seconds > CRASH_LOOP_SECONDS:
        return None
    return f"running for {duration(max(seconds, 0.0))}, since it ended: {termination(container)}"


def _failed(*states: Object) -> bool:
    return any((state.get("terminated") or {}).get("exitCode") for state in states)


def _unschedulable(message: str) -> str:
    short = _short(message)
    if gpu := re.search(r"Insufficient ([\w.-]+/[\w-]+)", message):
        return f"no node has a free {gpu[1]} ({short})"
    return f"no node takes it ({short})"


def failure(job: Object, pods: Sequence[Object]) -> str:
    """Returns the last error that a failed Job's Pods logged, without those of an earlier Job of the same name."""
    ended = _ended_containers(job, pods)
    return termination(ended[-1]) if ended else ""


def never_began(job: Object, pods: Sequence[Object]) -> bool:
    """Returns whether a Job failed for good by the exit code 2, but none of its Pods wrote the error that belongs to it.

    A container ends with 2, and not with 143, if it is told to end just before its program begins (opencontainers/runc#5189).
    """
    ended = (container["state"]["terminated"] for container in _ended_containers(job, pods))
    return job_state(job).reason.startswith("PodFailurePolicy") and not any(map(_errors, ended))


def _ended_containers(job: Object, pods: Sequence[Object]) -> list[Object]:
    uid = job["metadata"].get("uid")
    own = [pod for pod in pods if any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences") or ())]
    containers = [c for pod in own for c in pod.get("status", {}).get("containerStatuses") or ()]
    ended = [c for c in containers if "terminated" in c.get("state", {})]
    return sorted(ended, key=lambda container: str(container["state"]["terminated"].get("finishedAt")))


def termination(container: Object) -> str:
    """Returns a container's exit code and the last error of its termination message (the end of its log, 2 KiB at most)."""
    for state in (container.get("state", {}), container.get("lastState", {})):
        if ended := state.get("terminated"):
            said = _errors(ended)
            return (
                f"exit {ended.get('exitCode')}: {said[-1]}"
                if said
                else f"exit {ended.get('exitCode')}, {ended.get('reason')}"
            )
    return ""


def _errors(ended: Object) -> list[str]:
    return [text for line in str(ended.get("message", "")).splitlines() if (text := _error(line))]


def _error(line: str) -> str:
    try:
        value = json.loads(line)
    except ValueError:
        return ""
    return str(value.get("event", "")) if isinstance(value, dict) and value.get("level") == "error" else ""


def job_reason(
    job: Object, pods: Sequence[Object], events: Sequence[Object], workloads: Sequence[Object] = ()
) -> str | None:
    """Returns why a Job makes no progress, or None if it does. `workloads` are Kueue's."""
    state = job_state(job)
    if state.phase == "complete":
        return None
    if state.phase == "failed":
        said = failure(job, pods)
        return f"failed ({state.reason})" + (f": {said}" if said else "")
    if state.phase == "suspended":
        return queue_reason(job, workloads)
    if reasons := [reason for pod in pods if (reason := pod_reason(pod))]:
        return reasons[0]
    if not any(not leaving(pod) for pod in pods):
        return refused(events)
    return None


def mount_reason(events: Sequence[Object]) -> str | None:
    """Returns why a Pod with a node does not start: another node holds its volume, or a Secret or a claim is missing."""
    failed = [event for event in events if event.get("reason") in ("FailedMount", "FailedAttachVolume")]
    return f"a volume cannot be mounted: {_short(_newest(failed).get('message', ''))}" if failed else None


def refused(events: Sequence[Object]) -> str | None:
    """Returns why no Pod could be created: a quota, Pod Security, a missing service account."""
    made = [event for event in events if event.get("reason") == "FailedCreate"]
    if not made:
        return None
    return f"no Pod can be made: {_short(_newest(made).get('message', ''))}"


def _newest(events: Sequence[Object]) -> Object:
    return max(events, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
