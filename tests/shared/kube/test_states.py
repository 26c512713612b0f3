"""Tests how the status of Jobs and Pods is read, with real messages of Kubernetes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.kube.states import (
    JobState,
    at_work,
    gpus_held,
    job_reason,
    job_state,
    mount_reason,
    never_began,
    pod_reason,
)
from tests.support.kube_objects import job, pod

NO_GPU = "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient nvidia.com/gpu. no new claims to deallocate"
LOG = "\n".join(
    [
        json.dumps({"level": "info", "event": "begins"}),
        json.dumps({"level": "error", "event": "final.epochs: must be >= 1, got 0"}),
        "not JSON",
    ]
)


def test_a_job_stands_where_its_conditions_say() -> None:
    assert job_state(job()) == JobState("active")
    assert job_state(job("j", suspend=True)) == JobState("suspended")
    assert job_state(job("j", ("Complete", "CompletionsReached", ""))) == JobState("complete")
    failed = job("j", ("FailureTarget", "PodFailurePolicy", "m"), ("Failed", "PodFailurePolicy", "exit code 2"))
    assert job_state(failed) == JobState("failed", "PodFailurePolicy: exit code 2")
    # its Pods are still ending
    assert job_state(job("j", ("FailureTarget", "PodFailurePolicy", "m"))) == JobState("active")


def test_a_job_is_at_work_when_a_pod_runs_or_has_ended_well() -> None:
    assert not at_work(job() | {"status": {"active": 1, "ready": 0}})
    assert not at_work(job() | {"status": {"active": 1, "ready": 0, "failed": 1}})
    assert at_work(job() | {"status": {"active": 1, "ready": 1, "failed": 1}})
    assert at_work(job() | {"status": {"active": 1, "ready": 0, "succeeded": 1}})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, None),
        ({"unschedulable": NO_GPU, "phase": "Pending"}, "no node has a free nvidia.com/gpu (0/3 nodes are available: "),
        ({"unschedulable": "0/1 nodes are available: 1 Insufficient cpu.", "phase": "Pending"}, "no node takes it (0/1 nodes"),
        ({"state": {"waiting": {"reason": "ContainerCreating"}}}, None),
        (
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}}},
            "the image registry/tailfill/final:1 cannot be pulled (Back-off pulling",
        ),
        (
            {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}}},
            'CreateContainerConfigError: secret "s3" not found',
        ),
        (
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
                "more": {"lastState": {"terminated": {"exitCode": 75, "reason": "Error", "message": LOG}}},
            },
            "it ended and waits to be started again: exit 75: final.epochs: must be",
        ),
        (
            {
                "state": {"running": {}},
                "more": {"ready": False, "lastState": {"terminated": {"exitCode": 2, "reason": "Error", "message": LOG}}},
            },
            "it ended and is started again: exit 2: final.epochs: must be",
        ),
        (
            {"state": {"terminated": {"exitCode": 2, "reason": "Error", "message": LOG}}},
            "it ended and is started again: exit 2: final.epochs: must be",
        ),
        ({"state": {"running": {}}, "more": {"ready": True, "lastState": {"terminated": {"exitCode": 2}}}}, None),
        (
            {
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                "more": {"ready": True, "lastState": {"terminated": {"exitCode": 2, "reason": "Error", "message": LOG}}},
            },
            None,
        ),
        ({"leaving": True, "unschedulable": NO_GPU}, None),
    ],
)  # fmt: skip
def test_why_a_pod_does_not_work(values: dict[str, Any], reason: str | None) -> None:
    found = pod_reason(pod("p", **values))
    assert found is None if reason is None else str(found).startswith(reason)


def test_a_container_that_runs_again_has_ended_before() -> None:
    state = {
        "running": {"startedAt": datetime.now(UTC).isoformat()}
    }  # now, as the tests before this one take their time
    before = {"ready": True, "lastState": {"terminated": {"exitCode": 2, "reason": "Error", "message": LOG}}}
    assert str(pod_reason(pod("p", state=state, more=before))).startswith("running for")


def test_why_a_job_does_not_move() -> None:
    waiting = pod("p", "Pending", unschedulable=NO_GPU)
    assert job_reason(job("j"), [waiting], []) == pod_reason(waiting)
    assert job_reason(job("j"), [pod("p")], []) is None
    assert job_reason(job("j", ("Complete", "", "")), [], []) is None
    queued = job("j", suspend=True)
    queued["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "research"}
    assert "the queue research has not admitted it" in str(job_reason(queued, [], []))
    quota = {"reason": "FailedCreate", "message": 'pods "x" is forbidden: exceeded quota: gpus', "lastTimestamp": "2"}
    older = {"reason": "FailedCreate", "message": "older", "lastTimestamp": "1"}
    assert job_reason(job("j"), [], [older, quota]) == 'no Pod can be made: pods "x" is forbidden: exceeded quota: gpus'
    ended = pod("p", "Failed", state={"terminated": {"exitCode": 2, "reason": "Error", "message": LOG}})
    failed = job("j", ("Failed", "PodFailurePolicy", "matching FailJob rule"))
    unavailable = {"exitCode": 75, "reason": "Error", "message": LOG, "finishedAt": "2026-11-24T01:00:00Z"}
    later = pod(
        "z",
        "Failed",
        state={"terminated": unavailable | {"finishedAt": "2026-11-25T01:00:00Z"}},
        owner="uid-of-another",
    )
    ended["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"] = "2026-11-24T02:00:00Z"
    # the newest by time, not by name, and none of an earlier Job of that name
    pods = [ended, pod("q", "Failed", state={"terminated": unavailable}), later]
    assert job_reason(failed, pods, []) == (
        "failed (PodFailurePolicy: matching FailJob rule): exit 2: final.epochs: must be >= 1, got 0"
    )


def test_a_volume_that_another_node_holds() -> None:
    event = {"reason": "FailedAttachVolume", "message": 'Multi-Attach error for volume "pvc-1"'}
    assert mount_reason([event]) == 'a volume cannot be mounted: Multi-Attach error for volume "pvc-1"'
    assert mount_reason([{"reason": "Unhealthy", "message": "x"}]) is None


def test_only_pods_with_a_node_hold_gpus() -> None:
    pods = [pod("a", node="n", gpus=2), pod("b", gpus=4), pod("c", "Succeeded", node="n", gpus=8), pod("d", node="n")]
    assert gpus_held(pods) == 2


def test_a_job_whose_program_never_began_is_told_from_one_whose_user_erred() -> None:
    """The runtime of a container ends with 2 if it is told to end just before it begins the program."""
    failed = job("j", ("Failed", "PodFailurePolicy", "exit code 2"))
    silent = pod("p", "Failed", state={"terminated": {"exitCode": 2, "reason": "Error"}})
    spoken = pod("p", "Failed", state={"terminated": {"exitCode": 2, "reason": "Error", "message": LOG}})
    assert never_began(failed, [])  # a Pod that was deleted is gone
    assert never_began(failed, [silent])
    assert not never_began(failed, [spoken])
    assert not never_began(job("j", ("Failed", "BackoffLimitExceeded", "m")), [silent])
