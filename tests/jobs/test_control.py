"""Tests what control needs on a cluster. `tests/cluster` tests what it does on a real one."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from jobs import control
from jobs.control import ControlPod, check_database, open_release_session
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.s3 import S3Store
from shared.config.load import load_study, study_from_tree
from shared.errors import ConfigError, Stopped, UnavailableError
from shared.kube.release import Release
from shared.pipeline.kube_executor import KubeExecutor
from shared.pipeline.plan import make_task, plan
from shared.pipeline.session import Session
from shared.settings import Settings
from shared.stop import StopSignal
from tests.support.committed import commit_steps
from tests.support.kube_server import kube_server
from tests.support.small_study import SMALL_STUDY
from tests.support.two_classes import write_images
from tests.support.webhook_server import webhook_server

ROOT = Path(__file__).parents[2]
STUDY = SMALL_STUDY
WITHOUT = [
    "torch",
    "torchvision",
    "timm",
    "diffusers",
    "transformers",
    "sklearn",
    "PIL",
    "matplotlib",
    "jinja2",
    "imagehash",
    "safetensors",
    "scipy",
    "mlflow",
]
"""The packages that are not in control's image (its lock is images/control/requirements.lock)."""


def run_without(packages: Sequence[str], code: str) -> None:
    """Runs code in a Python that has none of these packages."""
    absent = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {list(packages)!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
from pathlib import Path
from shared.config.load import load_study
study = load_study(Path({str(STUDY)!r}))
"""
    done = subprocess.run([sys.executable, "-c", absent + code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_control_needs_only_what_its_image_has() -> None:
    run_without(
        WITHOUT,
        """
import jobs.control, jobs.cli.release, shared.search.results, shared.tracking.event_files, shared.tracking.mlflow_runs
from shared.pipeline.plan import plan
from shared.config.stages import STAGES
from shared.pipeline.final_tasks import final_tasks
assert len(plan(study)) == 15 and all(kind.version for kind in STAGES.values())
""",
    )
    locked = (ROOT / "images" / "control" / "requirements.lock").read_text()
    names = {"PIL": "pillow", "sklearn": "scikit-learn", "mlflow": "mlflow-skinny"}
    present = [name for name in WITHOUT if f"\n{names.get(name, name)}==" in locked]
    assert present == ["PIL"]  # tensorboard wants it, and the image is built without it:
    assert " PIL pillow.libs " in (ROOT / "images" / "docker-bake.hcl").read_text()


def test_a_search_is_coordinated_with_what_the_image_slim_has() -> None:
    run_without(
        ["torch", "torchvision", "timm", "diffusers", "transformers", "safetensors", "kubernetes"],
        """
import jobs.tune, shared.search.coordinator, shared.search.metrics
from shared.search.space import planned_points
assert planned_points(study.written.search, study.written.search.space, 0, {}, [], 4) == []
qmc = study.written.search.model_copy(update={"sampler": "qmc"})
assert len(planned_points(qmc, qmc.space, 0, {}, [], 4)) == 4
""",
    )


def test_outside_of_a_pod_control_says_what_to_use() -> None:
    with pytest.raises(
        ConfigError, match="TAILFILL_RELEASE: is not set; control runs in a Pod of the chart, on one machine use"
    ):
        Release.of_pod(Settings.from_environment({}))


def test_pods_share_no_folder(tmp_path: Path) -> None:
    settings = Settings.from_environment({"TAILFILL_STORE": str(tmp_path)})
    with pytest.raises(ConfigError, match="TAILFILL_STORE: must be s3://bucket/prefix on a cluster"):
        open_release_session(load_study(STUDY), settings)


def test_the_data_are_read_once_and_again_when_somebody_says_so(
    tmp_path: Path, s3_server: Settings, s3_store: S3Store
) -> None:
    write_images(tmp_path / "clothes")
    tree: dict[str, Any] = {
        "name": "s",
        "dataset": {"source": "folder", "root": str(tmp_path / "clothes")},
        "finetune": {"generator": "pixel"},
        "experiments": [{"name": "real"}],
    }
    settings = replace(s3_server, store=s3_store.url)

    def key(revision: int = 0, **changed: object) -> str:
        session = open_release_session(study_from_tree(tree | changed), replace(settings, data_revision=revision))
        return make_task(session.study, session.steps[0], {}).key

    first, later = key(), key(seed=1)
    (tmp_path / "clothes" / "notes.txt").write_text("a stray file")
    assert key() == first  # as when control restarts
    assert key(seed=1) == later
    second = key(revision=1)
    assert second != first
    (tmp_path / "clothes" / "notes.txt").unlink()
    assert key(revision=1) == second
    other = {**tree["dataset"], "resolution": 32}
    assert key(revision=2) == first
    assert key(revision=1, dataset=other) != second


@pytest.mark.parametrize("damaged", [b"", b"7", b'{"a": 1}', b"\xff"])
def test_kept_digests_that_are_damaged_are_computed_again(
    s3_server: Settings, s3_store: S3Store, damaged: bytes
) -> None:
    settings, study = replace(s3_server, store=s3_store.url), load_study(STUDY)
    ids = [step.id for step in open_release_session(study, settings).steps]
    kept = list(s3_store.list(f"{study.name}/digests/"))
    assert len(kept) == 2
    for name in kept:
        s3_store.put(name, damaged)
    assert [step.id for step in open_release_session(study, settings).steps] == ids
    assert damaged not in {s3_store.get(name) for name in kept}


def test_the_database_is_asked_while_a_search_is_still_to_come(tmp_path: Path, database_url: str) -> None:
    study = load_study(STUDY)
    artifacts = Artifacts(FolderStore(tmp_path / "store"), study.name, tmp_path / "cache")

    def ask(url: str) -> None:
        check_database(Session(study, plan(study), artifacts, Settings.from_environment({"DATABASE_URL": url})))

    ask(database_url)
    with pytest.raises(ConfigError, match="password authentication failed"):
        ask(database_url.replace("@", "x@"))
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
        ask("postgresql://nobody@127.0.0.1:1/none")
    commit_steps(study, plan(study), artifacts)
    ask("postgresql://nobody@127.0.0.1:1/none")


def test_the_news_of_a_release_is_posted_once_however_often_control_starts(
    s3_server: Settings, s3_store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = load_study(STUDY)

    def wrong(_: object) -> list[Any]:
        raise ConfigError("x: is wrong; fix it")

    with kube_server() as (_, cluster), webhook_server() as server:
        worker: dict[str, Any] = {"metadata": {}, "spec": {"template": {"metadata": {}}}}
        release = Release("study", cluster, {}, {"metadata": {"name": "study-stages", "uid": "1"}}, worker, "digest")
        webhook = SecretStr(f"{server.address}/SECRET")
        settings = replace(s3_server, store=s3_store.url, study="digest", webhook=webhook)
        session = open_release_session(study, settings)
        monkeypatch.setattr(StopSignal, "install", lambda _: None)
        monkeypatch.setattr(Release, "of_pod", lambda _: release)
        monkeypatch.setattr(control, "load_release_study", lambda: study)
        monkeypatch.setattr(control, "check_database", lambda _: None)
        monkeypatch.setattr(control, "DONE_SECONDS", 0.05)

        def started() -> ControlPod:
            pod = ControlPod()
            pod.settings = settings
            return pod

        with monkeypatch.context() as broken:
            broken.setattr(KubeExecutor, "advance", wrong)
            for _ in range(2):
                with pytest.raises(ConfigError, match="is wrong"):
                    started().run()
        commit_steps(study, session.steps, session.artifacts)
        pod = started()

        def stop_when_told() -> None:
            deadline = time.monotonic() + 60
            while len(server.posts) < 2 and time.monotonic() < deadline:
                time.sleep(0.02)
            pod.stop.set()

        threading.Thread(target=stop_when_told).start()
        with pytest.raises(Stopped):
            pod.run()
    news = [json.loads(body) for _, _, body in server.posts]
    assert [(each["event"], each["study"]) for each in news] == [("failed", study.name), ("done", study.name)]
    assert news[0]["sentence"] == "the study failed: x: is wrong; fix it"
    assert news[1]["report"].startswith(f"{s3_store.url}/{study.name}/report/")
