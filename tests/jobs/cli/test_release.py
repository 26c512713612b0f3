"""Tests how a user's machine handles the output of a command in the control Pod. `tests/cluster` tests the Pod itself."""

from __future__ import annotations

import base64
import gzip
import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.cli import release
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.keys import new_task
from shared.config.load import load_study
from shared.errors import ArtifactError, InputError, TailfillError, UnavailableError
from shared.kube.manifests import stage_job
from shared.pipeline.plan import plan
from shared.pipeline.status import task_id
from tests.support.committed import commit_task
from tests.support.kube_objects import job, pod
from tests.support.kube_server import kube_server


@pytest.mark.parametrize(("code", "error"), [(75, UnavailableError), (2, InputError)])
def test_a_report_that_cannot_be_fetched_keeps_what_a_script_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[TailfillError]
) -> None:
    monkeypatch.setattr(release, "run_in_control", lambda *_: code)
    with pytest.raises(error, match="release study: ") as caught:
        release.fetch_release_report("study", None, tmp_path / "report")
    assert caught.value.exit_code == code
    assert not (tmp_path / "report").exists()


def test_a_command_that_ends_with_its_container_says_why_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {"app.kubernetes.io/instance": "study", "app.kubernetes.io/component": "control"}
    ended = {"terminated": {"exitCode": 2, "message": '{"level": "error", "event": "no such study"}'}}
    control = pod("study-control-a", state={"running": {}}, more={"ready": True})
    control["metadata"]["labels"] = labels
    with kube_server() as (server, cluster):

        def killed(*_: object) -> int:
            control["status"]["containerStatuses"][0] |= {"state": ended, "ready": False}
            server.add("pods", control)
            return 137

        server.add("pods", control)
        monkeypatch.setattr(cluster, "execute", killed)
        monkeypatch.setattr(release.Cluster, "of_kubeconfig", lambda _: cluster)
        with pytest.raises(UnavailableError, match=r"was killed: its container ended") as raised:
            release.run_in_control("study", None, ["status"])
    assert "control: it ended and is started again: exit 2: no such study" in str(raised.value)


def test_a_release_that_is_not_there_may_have_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with kube_server() as (_, cluster):
        monkeypatch.setattr(release.Cluster, "of_kubeconfig", lambda _: cluster)
        with pytest.raises(
            InputError, match=r"release study: there is none in the namespace ns; .* or its fullnameOverride"
        ):
            release.run_in_control("study", None, ["status"])


def packed(*members: tarfile.TarInfo) -> str:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return base64.b64encode(buffer.getvalue()).decode()


def member(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, to, 3 * (kind == tarfile.REGTYPE)
    return info


PAGE = member("index.html")


def fetch(archive: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    def answer(*given: Any) -> int:
        given[3].write(archive)
        return 0

    monkeypatch.setattr(release, "run_in_control", answer)
    return release.fetch_release_report("study", None, folder)


def test_a_report_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(fetch(packed(PAGE, member("plots/a.png")), tmp_path / "report", monkeypatch))
    assert page.read_bytes() == (tmp_path / "report/plots/a.png").read_bytes() == b"xxx"


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (packed(PAGE, member("../x")), "names are relative and normal"),
        (packed(PAGE, member("/etc/x")), "names are relative and normal"),
        (packed(member("a", tarfile.SYMTYPE, "/etc"), member("a/x")), "is not a regular file"),
        (packed(member("a", tarfile.LNKTYPE, "nowhere")), "is not a regular file"),
        (packed(member("a", tarfile.FIFOTYPE)), "is not a regular file"),
        (packed(member("a"), member("a/b")), "cannot be written"),
        ("no archive", "control sent no archive"),
        (packed(PAGE)[:40], "control sent no archive"),
    ],
    ids=["parent", "absolute", "link", "hard-link", "pipe", "file-as-folder", "text", "cut-short"],
)
def test_an_archive_that_is_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: str, said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        fetch(archive, tmp_path / "report", monkeypatch)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["report"])


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("MOST_SENT", "control sends more than 4 characters"),
        ("MOST_UNPACKED", "unpacks to more"),
        ("MOST_FILES", "unpacks to more"),
    ],
)
def test_an_archive_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, said: str) -> None:
    monkeypatch.setattr(release, limit, 4 if limit != "MOST_FILES" else 1)
    with pytest.raises(ArtifactError, match=said):
        fetch(packed(PAGE, member("a"), member("b")), tmp_path / "report", monkeypatch)
    assert sum(path.is_file() for path in tmp_path.rglob("*")) <= 1


def test_a_member_that_claims_to_be_immense_is_refused_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = member("index.html")
    claim.size = 1 << 40
    archive = base64.b64encode(gzip.compress(claim.tobuf())).decode()
    with pytest.raises(ArtifactError, match="unpacks to more than any report has"):
        fetch(archive, tmp_path / "report", monkeypatch)
    assert not (tmp_path / "report").exists()


def test_of_a_block_one_training_runs_and_the_others_wait(tmp_path: Path) -> None:
    study = load_study(Path(__file__).parents[3] / "studies" / "demo.yaml")
    config = next(step for step in plan(study) if step.stage == "final").config
    tasks = [
        new_task(study.name, "final", config.model_copy(update={"repeat": number}), {}, study.resources)
        for number in range(6)
    ]
    artifacts = Artifacts(FolderStore(tmp_path / "store"), study.name, tmp_path / "cache")
    commit_task(tasks[0], artifacts)
    owner = {"metadata": {"name": "study-control", "uid": "1"}}

    def block(*numbers: int) -> dict[str, Any]:
        labels = {"app.kubernetes.io/component": "final"}
        manifest = {"metadata": {"labels": labels}, "spec": {"template": {"metadata": {"labels": labels}}}}
        return stage_job(manifest, "study", artifacts.save_tasks([tasks[number] for number in numbers]), owner, "1")

    working, failed = block(0, 1, 2), block(3, 4, 5)
    name = working["metadata"]["name"]
    condition = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": ""}
    failed["status"] = {"conditions": [condition]}
    again = block(4)
    pods = [
        {
            "metadata": {"name": one, "labels": {"batch.kubernetes.io/job-name": one}},
            "spec": {},
            "status": {"phase": "Running"},
        }
        for one in (name, again["metadata"]["name"])
    ]
    snapshot = release.ReleaseSnapshot("study", [], [working, failed, again], pods, [], [], 0, [])
    statuses = snapshot.task_statuses(artifacts)
    states = {number: statuses.get(task_id("final", task.key)) for number, task in enumerate(tasks)}
    assert {number: state.state if state else None for number, state in states.items()} == {
        0: None, 1: "running", 2: "pending", 3: "failed", 4: "running", 5: None
    }  # fmt: skip
    assert states[2] is not None
    assert states[2].detail == f"number 2 of what {name} has left"


def test_the_status_tells_workers_with_a_job_from_those_without_and_says_why_one_failed() -> None:
    failed = job("study-worker-2", ("Failed", "PodFailurePolicy", "exit code 2"))
    ended = {"terminated": {"exitCode": 2, "message": '{"level": "error", "event": "no such model"}'}}
    pods = [pod("a", node="n", gpus=1), pod("b", "Failed", node="n", gpus=1, state=ended, owner="uid-study-worker-2")]
    for found, name in zip(pods, ("study-worker-0", "study-worker-2"), strict=True):
        found["metadata"]["labels"]["batch.kubernetes.io/job-name"] = name
    workers = [job("study-worker-0"), job("study-worker-1", suspend=True), failed]
    workers[1]["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gold"}
    lacks = {"type": "QuotaReserved", "status": "False", "message": "insufficient quota for cpu in flavor default"}
    owner = [{"uid": "uid-study-worker-1"}]
    workload = {"metadata": {"ownerReferences": owner}, "status": {"conditions": [lacks]}}
    control = pod("study-control-a", state={"running": {}}, more={"ready": True})
    snapshot = release.ReleaseSnapshot("study", [control], [], [], workers, pods, 5, [], [workload])
    said = {
        "study-worker-1": "is suspended: the queue gold has not admitted it: insufficient quota for cpu in flavor default",
        "study-worker-2": "failed (PodFailurePolicy: exit code 2): exit 2: no such model",
    }
    first, counts, *reasons, last = snapshot.lines()
    assert (first, last, snapshot.control_runs) == ("control: running", "GPUs held: 1", True)
    assert counts.startswith(
        "workers: 5 allowed (`kubectl scale deployment/study-tune` changes it), 2 with a Job, 3 without: "
    )
    assert reasons == [f"  {name}: {reason}" for name, reason in said.items()]
    expected = {
        "control": "running",
        "workers": {"all": 5, "waiting": 3, "database_allows": None},
        "gpus_held": 1,
        "stuck": said,
    }
    assert snapshot.as_json() == expected


def test_the_status_says_that_postgresql_has_too_few_connections() -> None:
    snapshot = release.ReleaseSnapshot("study", [], [], [], [job("study-worker-0")], [], 50, [], database_allows=20)
    _, counts, *_ = snapshot.lines()
    assert "50 allowed" in counts
    assert (
        "PostgreSQL has connections for 20 (raise its max_connections, or use PgBouncer), 1 with a Job, 19 without"
        in counts
    )
    assert snapshot.as_json()["workers"] == {"all": 50, "waiting": 19, "database_allows": 20}
    plenty = replace(snapshot, database_allows=60)
    assert "PostgreSQL" not in "".join(plenty.lines())
    assert plenty.as_json()["workers"] == {"all": 50, "waiting": 49, "database_allows": 60}
