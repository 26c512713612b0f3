"""Tests what a user reads if something is wrong on a cluster, and that an upgrade can fix it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.cluster_release import Release, registry, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

VALUES = Path(__file__).parent / "small-values.yaml"


def values(folder: Path, model: str = "test_resnet", name: str = "wrong", **final: object) -> Path:
    """Writes values for one training and a report, without a search; `final` are values of that stage."""
    tree = yaml.safe_load(VALUES.read_text())
    tree["study"] |= {"name": name, "experiments": [{"name": "real", "images": "real"}]}
    tree["study"]["classifier"]["model"] = model
    tree["study"]["search"]["trials"] = 0
    tree["stages"]["final"] = final
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def detail(release: Release) -> str:
    """Returns what the status says about the training."""
    return str(release.steps().get("final real 0", {}).get("detail"))


def test_bad_configuration_ends_the_job_at_once(release: Release, tmp_path: Path) -> None:
    release.install(values(tmp_path, model="no_such_model"))
    wait_for(lambda: release.pods("control", "Running"), "control runs", 300)
    (name,) = wait_for(lambda: release.jobs("final"), "the training's Job", 300)
    release.kubectl("wait", "--for=condition=failed", f"job/{name}", "--timeout=180s")
    conditions = {c["type"]: c for c in release.jobs("final")[name]["status"]["conditions"]}
    assert conditions["Failed"]["reason"] == "PodFailurePolicy"
    assert len(release.pods("final")) == 1  # it is not tried again
    assert 'timm has no model \\"no_such_model\\"' in release.kubectl("describe", "pod", release.pods("final")[0])
    found = wait_for(lambda: "failed" in (said := detail(release)) and said, "the status says so", 60)
    assert 'exit 2: classifier.model: timm has no model "no_such_model"' in found


def test_an_image_that_cannot_be_pulled(release: Release, tmp_path: Path) -> None:
    release.install(values(tmp_path, image=f"{registry()}/tailfill/nothing:none"))
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")
    wait_for(lambda: "cannot be pulled" in detail(release), "the status says so", 120)
    assert not release.status()["gpus_held"] or release.has_gpus()


def test_no_node_with_a_gpu(release: Release, tmp_path: Path) -> None:
    if not release.has_gpus():
        pytest.skip("no node has a GPU: make kind-gpus")
    release.install(values(tmp_path, gpu={"count": 99}))
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")
    # the Job never started, so it is created again from the new manifest
    wait_for(lambda: "no node has a free nvidia.com/gpu" in detail(release), "the status says so", 120)


def test_a_quota(release: Release, tmp_path: Path) -> None:
    release.install(values(tmp_path, image=f"{registry()}/tailfill/nothing:none"))  # the Pod stays and never starts
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")
    wait_for(lambda: "cannot be pulled" in detail(release), "its Pod is there", 120)
    release.kubectl("create", "quota", "none", "--hard=count/pods=0")
    try:
        release.kubectl("delete", "pod", *release.pods("final"), "--wait=false")
        wait_for(lambda: "exceeded quota" in detail(release), "the status names the quota", 120)
    finally:
        release.kubectl("delete", "quota", "none")


def test_mended_it_goes_on_to_its_report(release: Release, tmp_path: Path) -> None:
    release.install(values(tmp_path))
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")
    wait_for(release.all_committed, "the report", 300, 3.0)


def test_a_store_that_is_away_is_named(release: Release) -> None:
    release.kubectl("scale", "statefulset/study-minio", "--replicas=0")
    release.kubectl("wait", "--for=delete", "pod/study-minio-0", "--timeout=60s")
    done = release.tailfill("status")
    assert done.returncode == 0, done.stderr
    assert "nothing moves: s3://tailfill" in done.stdout
    assert "study-minio" in done.stdout
    assert "workers: " in done.stdout
    release.kubectl("scale", "statefulset/study-minio", "--replicas=1")


def test_what_control_cannot_read_is_in_its_description(release: Release, tmp_path: Path) -> None:
    tree = yaml.safe_load(values(tmp_path, name="nowhere").read_text())
    tree["study"]["dataset"] = {"source": "folder", "root": "/nowhere"}
    path = tmp_path / "values.yaml"
    path.write_text(yaml.safe_dump(tree))
    wait_for(lambda: release.pods("minio", "Running"), "MinIO is back", 120)
    release.install(path)

    def described() -> bool:
        return "there is no folder /nowhere" in release.kubectl(
            "describe", "pod", *release.pods("control"), check=False
        )

    wait_for(described, "the message stands in the description", 240, 3.0)
    for _ in range(10):  # before, in and after its crashes
        done = release.tailfill("status")
        assert done.returncode in (2, 75), done.stdout
        assert "/nowhere" in done.stderr


def test_a_release_that_there_is_not(release: Release) -> None:
    done = Release(release.namespace, "other").tailfill("status")
    assert (done.returncode, "release other: there is none in the namespace" in done.stderr) == (2, True)
