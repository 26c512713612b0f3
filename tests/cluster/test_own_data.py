"""Tests a user's own images, from a claim and from a bucket, and weights that one Job downloads from a hub.

The tests depend on each other and run in order: the last continues what the first has installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.cluster_release import ROOT, Release, registry, tag, wait_for
from tests.support.two_classes import COUNTS, write_images

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

HERE = Path(__file__).parent
BUCKET = "s3://tailfill/data/clothes"
STUDY = {
    "name": "clothes",
    "dataset": {"source": "folder", "root": "/data/clothes", "resolution": 32},
    "finetune": {"generator": "pixel"},
    "classifier": {"model": "test_resnet", "pretrained": True, "trainable": "head", "head": []},
    "training": {"batch_size": 16},
    "search": {"trials": 0},
    "final": {"epochs": 1, "seeds": 1},
    "verdict": "none",
    "experiments": [{"name": "real", "images": "real"}],
}


def values(folder: Path, claim: str = "", revision: int = 0, **study: object) -> Path:
    """Writes values for a training and a report, with the hub of this namespace."""
    path = folder / "values.yaml"
    hub = {"weights": {"env": [{"name": "HF_ENDPOINT", "value": "http://hub:8000"}]}}
    path.write_text(
        yaml.safe_dump({"study": STUDY | study, "data": {"claim": claim, "revision": revision}, "stages": hub})
    )
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of images."""
    root = tmp_path_factory.mktemp("images") / "clothes"
    write_images(root)
    return root


def test_images_of_a_claim_and_weights_of_a_hub_and_a_stray_file_beside_them(
    release: Release, images: Path, tmp_path: Path
) -> None:
    release.kubectl("create", "configmap", "hub", f"--from-file={ROOT / 'tests' / 'support' / 'hub_server.py'}")
    image = f"{registry()}/tailfill/weights:{tag()}"
    release.kubectl("apply", "-f", "-", text=(HERE / "own-data.yaml").read_text().replace("IMAGE", image))
    release.kubectl("wait", "--for=condition=ready", "pod/hub", "--timeout=180s")
    release.kubectl("cp", str(images), "hub:/data/clothes")
    release.install(values(tmp_path, claim="clothes"))
    wait_for(lambda: release.pods("final", "Running"), "the training runs", 400, 0.5)
    before = {job["metadata"]["uid"] for job in release.objects("jobs")}
    release.kubectl("exec", "hub", "--", "python", "-c", "open('/data/clothes/notes.txt', 'w').write('stray')")
    release.kubectl("rollout", "restart", "deployment/study-control")
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")
    wait_for(lambda: release.jobs("report"), "the report's Job", 400, 3.0)
    wait_for(release.all_committed, "the report", 120, 3.0)
    assert before <= {job["metadata"]["uid"] for job in release.objects("jobs")}  # control's restart deleted none
    (job,) = release.jobs("weights").values()
    assert "nvidia.com/gpu" not in str(job["spec"]["template"]["spec"])
    (weights,) = release.summaries("weights")
    assert weights["repository"] == "timm/test_resnet.r160_in1k"
    (prepared,) = release.summaries("prepare")
    assert sum(prepared["sizes"].values()) == sum(COUNTS.values())


def test_a_stray_file_changes_nothing_until_somebody_raises_the_revision(release: Release, tmp_path: Path) -> None:
    before, jobs = release.manifests(), {job["metadata"]["uid"] for job in release.objects("jobs")}
    release.kubectl("rollout", "restart", "deployment/study-control")
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")
    wait_for(release.all_committed, "all is found", 120)
    assert (release.manifests(), {job["metadata"]["uid"] for job in release.objects("jobs")}) == (before, jobs)
    release.install(values(tmp_path, claim="clothes", revision=1))
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")
    wait_for(lambda: len(release.jobs("prepare")) == 2, "the data are prepared again", 120)
    wait_for(release.all_committed, "the report", 400, 3.0)
    release.kubectl("exec", "hub", "--", "python", "-c", "import os; os.remove('/data/clothes/notes.txt')")


def test_the_same_images_in_a_bucket_are_the_same_data(release: Release, images: Path, tmp_path: Path) -> None:
    before = release.manifests()
    with release.store() as variables:
        command = [sys.executable, "-m", "jobs", "upload", str(images), BUCKET]
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert BUCKET in done.stdout
    release.install(values(tmp_path, dataset=STUDY["dataset"] | {"root": BUCKET}))
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")
    wait_for(release.all_committed, "all is found", 120)
    assert release.manifests() == before


def test_what_reads_the_bucket_goes_no_more_online(release: Release, tmp_path: Path) -> None:
    before = release.manifests()
    release.kubectl("delete", "pod/hub", "service/hub")
    release.install(values(tmp_path, dataset=STUDY["dataset"] | {"root": BUCKET}, seed=1))
    release.kubectl("rollout", "status", "deployment/study-control", "--timeout=120s")
    wait_for(lambda: release.all_committed() and release.manifests() != before, "the other seed's report", 400, 3.0)
    new = [name.split("/")[0] for name in release.manifests() if name not in before]
    assert sorted(new) == ["final", "prepare", "report"]
