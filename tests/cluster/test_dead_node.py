"""Tests that the Pod of a node that does not answer is replaced, and that what it still does changes nothing."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster_release import Release, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

VALUES = Path(__file__).parent / "small-values.yaml"
BOUND = 30
TOLERATED = 10
SILENCE = 60  # seconds after which Kubernetes calls a node unreachable, and some more


def docker(*arguments: str) -> None:
    """Runs docker, of which the nodes of kind are containers."""
    subprocess.run(["docker", *arguments], check=True, capture_output=True, timeout=60)


def nodes(release: Release) -> list[str]:
    """Returns the nodes of kind, the control plane first; skips the test without kind."""
    names = sorted(node["metadata"]["name"] for node in release.objects("nodes"))
    if shutil.which("docker") is None or not names[0].endswith("control-plane"):
        pytest.skip("needs kind and docker")
    return names


def values(folder: Path, **finetune: object) -> Path:
    """Writes values with a long fine-tuning; `finetune` are values of that stage."""
    tree: dict[str, Any] = yaml.safe_load(VALUES.read_text()) | {"control": {"lostPodSeconds": BOUND}}
    tree["study"]["finetune"]["steps"] = 3000
    tree["stages"]["finetune"] = finetune
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def fine_tuning(release: Release) -> str:
    """Returns the Pod of the fine-tuning after twenty of its steps."""
    wait_for(lambda: release.jobs("finetune"), "finetune's Job", 300)
    (pod,) = wait_for(lambda: release.pods("finetune", "Running"), "finetune runs", 300)
    wait_for(lambda: release.progress(pod) > 20, "twenty steps", 200, 0.5)
    return str(pod)


def replacement(release: Release, lost: str, seconds: float) -> str:
    """Returns the Pod that replaces a lost one."""

    def others() -> list[str]:
        return [pod for pod in release.pods("finetune") if pod != lost]

    (pod,) = wait_for(others, "another Pod", seconds)
    return str(pod)


def goes_on(release: Release, pod: str) -> None:
    """Waits until the Pod works, from the checkpoint of the one that was lost."""
    wait_for(lambda: release.progress(pod) > 0, "it goes on", 240, 0.5)
    assert release.progresses(pod)[0] >= 20
    (job,) = release.jobs("finetune").values()
    assert not job["status"].get("failed")  # it counts as a disruption


def test_a_pod_whose_kubelet_is_silent_is_replaced(release: Release, tmp_path: Path) -> None:
    """Its container works on. The kubelet of the only node is stopped, and the Pod deleted as Kubernetes does it after a while."""
    (node, *others) = nodes(release)
    if others:
        pytest.skip("the cluster has another node, which the next test stops")
    release.install(values(tmp_path))
    pod = fine_tuning(release)
    docker("exec", node, "pkill", "-STOP", "kubelet")
    try:
        release.kubectl("delete", "pod", pod, "--grace-period=5", "--wait=false")
        after = replacement(release, pod, BOUND + 90)
    finally:
        docker("exec", node, "pkill", "-CONT", "kubelet")
    goes_on(release, after)


def test_the_work_of_a_dead_node_goes_on_elsewhere(release: Release, tmp_path: Path) -> None:
    """The node is paused, and answers again when another has taken over; its Pod then works on for a moment."""
    (staying, *others) = nodes(release)
    if len(others) != 1:
        pytest.skip("needs two nodes: make kind-up KIND_CONFIG=k8s/kind-two-nodes.yaml")
    (node,) = others
    unanswered = [
        {
            "key": f"node.kubernetes.io/{key}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": TOLERATED,
        }
        for key in ("unreachable", "not-ready")
    ]
    here = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
    preferred = {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": here}]}
    }
    path = values(tmp_path, tolerations=unanswered, affinity=preferred)
    tree = yaml.safe_load(path.read_text())
    staying_there = {"nodeSelector": {"kubernetes.io/hostname": staying}}
    for part in ("minio", "postgresql", "control", "workers"):
        tree[part] = tree.get(part, {}) | staying_there
    for stage in ("prepare", "tune"):
        tree["stages"][stage] = staying_there
    path.write_text(yaml.safe_dump(tree))
    release.install(path)
    pod = fine_tuning(release)

    def named() -> bool:
        return "does not answer" in str(release.steps().get("finetune", {}).get("detail"))

    docker("pause", node)
    try:
        wait_for(named, "the status names it", SILENCE + TOLERATED + BOUND)
        after = replacement(release, pod, SILENCE + TOLERATED + BOUND + 90)
        goes_on(release, after)
    finally:
        docker("unpause", node)
    wait_for(release.all_committed, "the report", 600, 3.0)
