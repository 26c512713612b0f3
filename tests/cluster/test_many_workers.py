"""Tests that many tuning workers begin at once, and that none waits for what another one claims."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from tests.support.cluster_release import Release, registry, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

VALUES = Path(__file__).parent / "small-values.yaml"
MANY = 200


def made_at(release: Release) -> list[float]:
    """Returns when each worker's Job was made, in seconds since 1970."""
    jobs = release.objects("jobs", "tailfill/role=worker")
    return [datetime.fromisoformat(job["metadata"]["creationTimestamp"]).timestamp() for job in jobs]


def test_two_hundred_workers_begin_within_half_a_minute(release: Release, tmp_path: Path) -> None:
    """The workers are stand-ins that claim nothing: their image does not exist."""
    tree = yaml.safe_load(VALUES.read_text()) | {"workers": {"image": f"{registry()}/tailfill/nothing:none"}}
    tree["postgresql"] = {"maxConnections": 2 * MANY}  # else control holds the workers below the chart's number
    tree["study"]["experiments"] = [{"name": "real", "images": "real"}]
    tree["study"]["search"]["trials"] = MANY
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(tree))
    release.install(path)
    release.kubectl("scale", "deployment/study-tune", "--replicas=0")

    def queued() -> bool:
        found = [step["search"] or {} for step in release.steps().values()]
        return any(search.get("queued") for search in found)

    wait_for(lambda: release.jobs("tune"), "a search", 400)
    wait_for(queued, "it hands out trials", 240)
    asked = time.time()
    release.kubectl("scale", "deployment/study-tune", f"--replicas={MANY}")
    wait_for(lambda: len(made_at(release)) == MANY, "all workers have a Job", 120)
    seconds = max(made_at(release)) - asked
    print(f"{MANY} workers' Jobs were made within {seconds:.0f} s")
    assert seconds < 30
    release.kubectl("scale", "deployment/study-tune", "--replicas=0")
    wait_for(lambda: not made_at(release), "all of them are deleted", 120)
