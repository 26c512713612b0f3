"""Tests upgrades from earlier charts, whose tuning workers were the Pods of a Deployment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cluster_release import Release, wait_for
from tests.support.earlier import earlier_files
from tests.support.rendered import PROGRAMS, program

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

VALUES = Path(__file__).parent / "small-values.yaml"
EARLIER = "2d323c378795bfb386dc85ef4aef83b6d444ffad"
"""Names the last commit whose workers were the Pods of a Deployment."""


@pytest.fixture
def earlier_chart(tmp_path: Path) -> Path:
    """Returns the folder of the earlier chart."""
    return earlier_files(EARLIER, tmp_path, "helm") / "helm"


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_pods_of_earlier_workers_go_and_their_number_stays(
    release: Release, earlier_chart: Path, name: str
) -> None:
    helm = program(name)
    release.install(VALUES, program=helm, chart=earlier_chart)
    release.kubectl("scale", "deployment/study-tune", "--replicas=3")
    wait_for(lambda: len(release.workers("Pending")) == 3, "three Pods behind their gate", 60)
    assert release.objects("replicasets", "tailfill/role=worker")
    release.install(VALUES, program=helm)
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=240s")
    wait_for(lambda: not release.objects("replicasets", "tailfill/role=worker"), "no ReplicaSet is left", 120)
    wait_for(lambda: not release.workers("Pending"), "no Pod of an earlier worker is left", 60)
    (deployment,) = [found for found in release.objects("deployments") if found["metadata"]["name"] == "study-tune"]
    assert (deployment["spec"]["replicas"], deployment["spec"]["paused"]) == (3, True)
    wait_for(lambda: release.jobs("prepare"), "the study begins", 240)
    release.helm("uninstall", release.name, program=helm)
    wait_for(lambda: not release.objects("jobs,pods"), "all is gone", 120)
