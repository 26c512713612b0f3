"""Tests a study on a cluster that others use too: with a quota on GPUs, without control for a while, with workers that come and go.

The tests depend on each other and run in order.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.cluster_release import Release, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]

VALUES = Path(__file__).parent / "small-values.yaml"
TRIALS = 6


def another_seed(folder: Path, seed: int, experiments: int = 2) -> Path:
    """Returns the values of so many experiments of the same study with another seed, so that all runs again."""
    tree = yaml.safe_load(VALUES.read_text())
    tree["study"]["seed"] = seed
    tree["study"]["experiments"] = tree["study"]["experiments"][:experiments]
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def ended(release: Release) -> bool:
    """Returns whether there are coordinators, and all of them have ended."""
    jobs = release.jobs("tune").values()
    return bool(jobs) and all(job["status"].get("succeeded") for job in jobs)


def workers_jobs(release: Release, *, over: bool = False) -> dict[str, str]:
    """Returns the uid of each worker's Job by its name, of those at work or those that are complete."""
    found = release.objects("jobs", "tailfill/role=worker")
    return {
        job["metadata"]["name"]: job["metadata"]["uid"] for job in found if bool(job["status"].get("succeeded")) is over
    }


def test_a_quota_no_larger_than_the_number_of_workers(release: Release) -> None:
    if not release.has_gpus():
        pytest.skip("no node has a GPU: make kind-gpus")
    release.kubectl("create", "quota", "gpus", "--hard=requests.nvidia.com/gpu=2")
    release.install(VALUES)
    wait_for(lambda: release.jobs("report"), "the report's Job", 1200, 3.0)
    wait_for(release.all_committed, "the report", 240, 3.0)
    assert [summary["trials"] for summary in release.summaries("tune")] == [TRIALS, TRIALS]
    release.kubectl("delete", "quota", "gpus")


def test_without_control_the_workers_end_with_their_search(release: Release, tmp_path: Path) -> None:
    release.install(another_seed(tmp_path, 1))
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")
    wait_for(lambda: len(release.workers()) == 2, "two workers", 400)
    before = workers_jobs(release)
    release.kubectl("scale", "deployment/study-control", "--replicas=0")
    release.kubectl("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=control", "--timeout=60s")
    wait_for(lambda: ended(release), "the search ends", 400)
    wait_for(lambda: not release.workers(), "no worker holds a GPU", 60)
    assert before.items() <= workers_jobs(release, over=True).items()  # they have ended by themselves
    release.kubectl("scale", "deployment/study-control", "--replicas=1")
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")
    wait_for(release.all_committed, "the report", 600, 3.0)


def test_workers_that_come_and_go_lose_no_trial(release: Release, tmp_path: Path) -> None:
    release.install(another_seed(tmp_path, 2, experiments=1))
    release.kubectl("scale", "deployment/study-tune", "--replicas=0")
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")
    wait_for(lambda: not ended(release), "a search", 400)
    assert not workers_jobs(release)
    release.kubectl("scale", "deployment/study-tune", "--replicas=4")
    wait_for(lambda: len(workers_jobs(release)) == 4 and len(release.workers()) >= 3, "four workers, or three", 240)
    release.kubectl("scale", "deployment/study-tune", "--replicas=1")
    wait_for(lambda: len(workers_jobs(release)) == 1, "one worker", 120)
    wait_for(release.all_committed, "the report", 900, 3.0)
    summary = release.summary(f"tune/{release.steps()['tune real']['key']}")
    assert (summary["trials"], summary["failed"]) == (TRIALS, 0)
