"""Tests the life of a release in its shortest form: installed, scaled, completed, uninstalled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cluster_release import KEPT, Release, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1200)]

VALUES = Path(__file__).parent / "small-values.yaml"
TRIALS = 6


def test_a_study_from_install_to_uninstall(release: Release) -> None:
    release.install(VALUES)
    release.kubectl("scale", "deployment/study-tune", "--replicas=0")
    wait_for(lambda: release.jobs("tune"), "a search", 400)
    release.kubectl("scale", "deployment/study-tune", "--replicas=2")
    (worker, _) = wait_for(lambda: len(found := release.workers()) == 2 and found, "two workers", 240)
    release.kubectl("delete", "pod", worker, "--wait=false")
    wait_for(lambda: release.jobs("report"), "the report's Job", 600, 3.0)
    wait_for(release.all_committed, "the report", 240, 3.0)
    assert [summary["trials"] for summary in release.summaries("tune")] == [TRIALS, TRIALS]
    wait_for(lambda: release.status()["gpus_held"] == 0, "no GPU is held", 60)
    release.helm("uninstall", release.name)
    wait_for(lambda: release.left() == KEPT, "nothing is left but claims and their Secret", 120)
