"""Tests an upgrade from the previous version of the chart and of the images, in the middle of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster_release import ROOT, Release, wait_for
from tests.support.earlier import earlier_files, earlier_images

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]

VALUES = Path(__file__).parent / "small-values.yaml"
TRIALS = 6
PREVIOUS = "8f2d5be927f47eb36c864a5629f3ef80e96d7a30"
"""Names the last commit of the chart's version 0.1.0, whose own store is MinIO."""


def keys(release: Release) -> dict[str, str]:
    """Returns the key of each step by its label, as far as it is known."""
    return {label: str(step["key"]) for label, step in release.steps().items() if step.get("key")}


def searching(release: Release) -> list[dict[str, Any]]:
    """Returns the searches that have begun."""
    return [step["search"] for step in release.steps().values() if "running" in (step["search"] or {})]


def uids(found: list[dict[str, Any]]) -> dict[str, str]:
    """Returns the uid of each object by its name."""
    return {each["metadata"]["name"]: each["metadata"]["uid"] for each in found}


def test_an_upgrade_in_the_middle_of_a_search_loses_nothing(release: Release, tmp_path: Path) -> None:
    previous = earlier_files(PREVIOUS, tmp_path, "helm", "shared", "jobs")
    release.install(VALUES, chart=previous / "helm", image_tag=earlier_images(previous))
    release.code = previous  # its control is asked by the command of its version
    wait_for(lambda: release.jobs("tune"), "a search", 600, 3.0)  # before there is a bucket, a status is an error
    # trials are short: a worker that is seen after a status may have ended meanwhile
    workers = wait_for(
        lambda: (
            any(s["finished"] and s["running"] for s in searching(release))
            and uids(release.objects("jobs", "tailfill/role=worker"))
        ),
        "a trial is done",
        900,
        3.0,
    )
    known, committed = keys(release), release.manifests()
    coordinators = uids(list(release.jobs("tune").values()))
    assert coordinators

    release.install(VALUES)
    release.code = ROOT
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=300s")
    # what runs is carried on, except workers: new ones go on from the checkpoints
    assert coordinators.items() <= uids(list(release.jobs("tune").values())).items()
    wait_for(
        lambda: not workers.items() & uids(release.objects("jobs", "tailfill/role=worker")).items(),
        "the workers are replaced",
        240,
    )
    assert known.items() <= keys(release).items()
    wait_for(lambda: release.jobs("report"), "the report's Job", 900, 3.0)
    wait_for(release.all_committed, "the report", 240, 3.0)
    assert known.items() <= keys(release).items()
    assert committed.items() <= release.manifests().items()
    found = release.summaries("tune")
    assert [(summary["trials"], summary["failed"]) for summary in found] == [(TRIALS, 0), (TRIALS, 0)]
    assert len(release.jobs("prepare")) == 1  # nothing was run again under another key
    (store,) = [each for each in release.objects("statefulsets") if each["metadata"]["name"] != "study-postgresql"]
    assert store["metadata"]["name"] == "study-minio"
