"""Says why Kueue has not admitted a Job, by the Workload that Kueue makes for it."""

from __future__ import annotations

from collections.abc import Sequence

from shared.kube.api import Object

QUEUE = "kueue.x-k8s.io/queue-name"
"""Names the label of a Job that names its LocalQueue."""
LONGEST = 300  # characters of Kueue's own message


def queue_reason(job: Object, workloads: Sequence[Object]) -> str:
    """Returns why a suspended Job waits: its queue, and in Kueue's words the quota that it lacks or what preempted it."""
    name = job["metadata"].get("labels", {}).get(QUEUE)
    if name is None:
        return "is suspended, and no queue will resume it: `kubectl patch job` with `suspend: false` does"
    uid = job["metadata"].get("uid")
    own = [each for each in workloads if uid in [o["uid"] for o in each["metadata"].get("ownerReferences") or ()]]
    if not own:
        return (
            f"is suspended: the queue {name} has not admitted it, and shows no Workload for it; see that Kueue runs, and that "
            "you may list workloads"
        )
    conditions = {c["type"]: c for c in own[-1].get("status", {}).get("conditions") or ()}
    parts = [f"is suspended: the queue {name} has not admitted it"]
    evicted, reserved = conditions.get("Evicted"), conditions.get("QuotaReserved")
    if evicted is not None and evicted["status"] == "True":
        parts.append(f"{str(evicted.get('reason', 'evicted')).lower()}: {_short(evicted)}")
    if reserved is not None and reserved["status"] == "True":
        checks = own[-1]["status"].get("admissionChecks") or ()
        parts += [f"{check['name']} is {str(check['state']).lower()}: {_short(check)}" for check in checks]
    elif reserved is not None:
        parts.append(_short(reserved))
    return ": ".join(filter(None, [parts[0], "; ".join(filter(None, parts[1:]))]))


def _short(condition: Object) -> str:
    return " ".join(str(condition.get("message", "")).split())[:LONGEST]
