"""Tests that a Pod whose node does not answer is named, and replaced once its time is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.kube.lost_pods import replace_lost_pods
from shared.kube.states import job_reason
from tests.support.kube_objects import job, pod
from tests.support.kube_server import kube_server


def ending(name: str, seconds: float, phase: str = "Running") -> dict[str, Any]:
    """Returns a Pod that should have ended so many seconds ago."""
    found = pod(name, phase, node="node-1")
    due = datetime.now(UTC) - timedelta(seconds=seconds)
    found["metadata"]["deletionTimestamp"] = due.strftime("%Y-%m-%dT%H:%M:%SZ")
    return found


@pytest.mark.parametrize("conditions", [[], [{"type": "DisruptionTarget", "status": "True", "reason": "Taint"}]])
def test_only_those_that_are_overdue_are_replaced(conditions: list[dict[str, str]]) -> None:
    lost, late, ended, alive = ending("lost", 700), ending("late", 500), ending("ended", 700, "Failed"), pod("alive")
    lost["status"]["conditions"] = conditions
    with kube_server() as (server, cluster):
        server.add("pods", lost, late, ended, alive)
        replace_lost_pods(cluster, server.pods, 600)
        assert [found["metadata"]["name"] for found in server.pods] == ["late", "ended", "alive"]
    (patched,) = server.failed
    assert patched["status"]["phase"] == "Failed"
    (condition,) = patched["status"]["conditions"]  # by which the Job does not count it as a failure
    assert (condition["type"], condition["reason"]) == ("DisruptionTarget", "NodeDoesNotAnswer")


def test_the_status_names_the_node() -> None:
    assert job_reason(job("j"), [ending("p", 10)], []) is None
    said = str(job_reason(job("j"), [ending("p", 90)], []))
    assert said.startswith("its node node-1 does not answer: the Pod p should have ended 1m")


def test_the_status_names_a_node_that_has_just_fallen_silent() -> None:
    running = pod("p", node="node-1", state={"running": {}}, more={"ready": True})
    running["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    assert job_reason(job("j"), [running], []) is None
    running["status"]["conditions"] = [{"type": "Ready", "status": "False"}]  # by Kubernetes, not by its kubelet
    assert str(job_reason(job("j"), [running], [])).startswith("its node node-1 does not answer; Kubernetes tells")
