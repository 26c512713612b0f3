"""Tests what is said of Jobs that wait in a queue of Kueue's, with messages of its version 0.17."""

from __future__ import annotations

from typing import Any

import pytest

from shared.kube.queues import QUEUE, queue_reason
from shared.kube.states import job_reason
from tests.support.kube_objects import job
from tests.support.kube_server import kube_server

QUOTA = (
    "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor gpu, 1 more needed"
)
PREEMPTED = "Preempted to accommodate a workload (UID: 1, JobUID: 2) due to prioritization in the ClusterQueue"
WAITS = "is suspended: the queue research has not admitted it"


def queued() -> dict[str, Any]:
    found = job("study-finetune-01234567", suspend=True)
    found["metadata"]["labels"] = {QUEUE: "research"}
    return found


def workload(*conditions: tuple[str, str, str, str], owner: str | None = None, **status: Any) -> dict[str, Any]:
    listed = [{"type": t, "status": s, "reason": r, "message": m} for t, s, r, m in conditions]
    uid = owner or queued()["metadata"]["uid"]
    return {
        "metadata": {"name": "job-study", "ownerReferences": [{"kind": "Job", "uid": uid}]},
        "spec": {"queueName": "research"},
        "status": {"conditions": listed, **status},
    }


@pytest.mark.parametrize(
    ("workloads", "said"),
    [
        ([workload(("QuotaReserved", "False", "Pending", QUOTA))], f"{WAITS}: {QUOTA}"),
        (
            [workload(("QuotaReserved", "False", "Inadmissible", "LocalQueue research doesn't exist"))],
            f"{WAITS}: LocalQueue research doesn't exist",
        ),
        (
            [workload(("QuotaReserved", "False", "Pending", QUOTA), ("Evicted", "True", "Preempted", PREEMPTED))],
            f"{WAITS}: preempted: {PREEMPTED}; {QUOTA}",
        ),
        (
            [
                workload(
                    ("QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue research"),
                    admissionChecks=[{"name": "capacity", "state": "Pending", "message": "waits for nodes"}],
                )
            ],
            f"{WAITS}: capacity is pending: waits for nodes",
        ),
        ([workload()], WAITS),
        ([], f"{WAITS}, and shows no Workload for it; see that Kueue runs"),
        (
            [workload(("QuotaReserved", "False", "Pending", QUOTA), owner="another")],
            f"{WAITS}, and shows no Workload",
        ),
    ],
)
def test_the_queue_and_what_it_lacks_are_named(workloads: list[dict[str, Any]], said: str) -> None:
    assert queue_reason(queued(), workloads).startswith(said)
    assert str(job_reason(queued(), [], [], workloads)).startswith(said)


def test_a_job_that_a_person_suspended_waits_for_no_queue() -> None:
    assert "no queue will resume it" in queue_reason(job(suspend=True), [])


def test_a_cluster_without_kueue_has_no_workloads() -> None:
    with kube_server() as (_, client):
        assert client.list_if_served("workloads") == []
