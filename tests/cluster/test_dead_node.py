"""Tests that a Pod on a node that does not answer is replaced. The kubelet of kind's node is stopped, which looks the same to the cluster."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.cluster_release import Release, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

VALUES = Path(__file__).parent / "small-values.yaml"
BOUND = 30


def kubelet(node: str, command: str) -> None:
    """Stops or starts the kubelet of a node of kind."""
    subprocess.run(["docker", "exec", node, "systemctl", command, "kubelet"], check=True, timeout=60)


def test_a_pod_of_a_dead_node_is_replaced(release: Release, tmp_path: Path) -> None:
    (node, *others) = [node["metadata"]["name"] for node in release.objects("nodes")]
    if others or shutil.which("docker") is None:
        pytest.skip("needs kind with one node, and docker")
    tree = yaml.safe_load(VALUES.read_text()) | {"control": {"lostPodSeconds": BOUND}}
    tree["study"]["finetune"]["steps"] = 3000
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(tree))
    release.install(path)
    wait_for(lambda: release.jobs("finetune"), "finetune's Job", 300)
    (pod,) = wait_for(lambda: release.pods("finetune", "Running"), "finetune runs", 300)
    wait_for(lambda: release.progress(pod) > 20, "twenty steps", 200, 0.5)
    kubelet(node, "stop")
    try:
        release.kubectl("delete", "pod", pod, "--grace-period=5", "--wait=false")

        def replaced() -> bool:
            return bool(found := release.pods("finetune")) and pod not in found

        wait_for(replaced, "another Pod", BOUND + 90)
    finally:
        kubelet(node, "start")
    (after,) = wait_for(lambda: release.pods("finetune", "Running"), "it runs", 240)
    wait_for(lambda: release.progress(after) > 0, "it goes on", 120, 0.5)
    assert release.progresses(after)[0] >= 20  # from its checkpoint
    (job,) = release.jobs("finetune").values()
    assert not job["status"].get("failed")  # it counts as a disruption
