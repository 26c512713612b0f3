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


def kubelet(node: str, signal: str) -> None:
    """Stops the kubelet of a node of kind, or lets it go on; its containers work on."""
    subprocess.run(["docker", "exec", node, "pkill", f"-{signal}", "kubelet"], check=True, timeout=60)


def test_a_pod_of_a_dead_node_is_replaced(release: Release, tmp_path: Path) -> None:
    (node, *others) = [node["metadata"]["name"] for node in release.objects("nodes")]
    if others or shutil.which("docker") is None or not node.endswith("control-plane"):
        pytest.skip("needs kind with one node, and docker")
    tree = yaml.safe_load(VALUES.read_text()) | {"control": {"lostPodSeconds": BOUND}}
    tree["study"]["finetune"]["steps"] = 3000
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(tree))
    release.install(path)
    wait_for(lambda: release.jobs("finetune"), "finetune's Job", 300)
    (pod,) = wait_for(lambda: release.pods("finetune", "Running"), "finetune runs", 300)
    wait_for(lambda: release.progress(pod) > 20, "twenty steps", 200, 0.5)
    kubelet(node, "STOP")
    try:
        # Kubernetes itself tells no Pod to end while none of its nodes answers
        release.kubectl("delete", "pod", pod, "--grace-period=5", "--wait=false")

        def others_than_it() -> list[str]:
            return [other for other in release.pods("finetune") if other != pod]

        (after,) = wait_for(others_than_it, "another Pod", BOUND + 90)
    finally:
        kubelet(node, "CONT")
    wait_for(lambda: release.progress(after) > 0, "it goes on", 240, 0.5)
    assert release.progresses(after)[0] >= 20  # from its checkpoint
    (job,) = release.jobs("finetune").values()
    assert not job["status"].get("failed")  # it counts as a disruption
