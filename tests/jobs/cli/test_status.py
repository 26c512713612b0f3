"""Tests `tailfill status` for the study that was run last, for a changed one, and for one that was never run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cli.run import run_study
from jobs.cli.status import status as status_of
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.load import load_study
from shared.errors import ConfigError
from shared.pipeline.local_session import STUDY_FILE, current_fingerprints, latest_workdir
from shared.pipeline.plan import plan
from tests.support.committed import commit_steps
from tests.support.local_commands import SMALL_STUDY, commit_all, run, status

pytestmark = pytest.mark.usefixtures("empty_folder")


def test_status_names_a_stage_that_is_running() -> None:
    commit_all()
    run()
    rows = json.loads(status_of(None, ["finetune.steps=9"], None, None, True))
    ready = next(row for row in rows if row["step"] == "finetune")
    assert ready["state"] == "ready"
    task = Path("work/demo/tasks").resolve() / f"finetune-{ready['key'][:16]}.json"
    task.write_text(json.dumps({"stage": "finetune", "key": ready["key"]}))
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "--config", str(task)])
    try:
        states = {
            row["step"]: row["state"] for row in json.loads(status_of(None, ["finetune.steps=9"], None, None, True))
        }
    finally:
        process.kill()
        process.wait()
    assert (states["finetune"], states["generate"], states["prepare"]) == ("running", "waiting", "committed")


def test_of_a_block_the_training_in_work_is_running() -> None:
    commit_all()
    run()
    sets = ["final.seeds=4"]
    rows = [row for row in json.loads(status_of(None, sets, None, None, True)) if row["step"].startswith("final real")]
    file = Path("work/demo/tasks").resolve() / "block.json"
    file.write_text(json.dumps([{"stage": "final", "key": row["key"]} for row in rows]))
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "--config", str(file)])
    try:
        again = json.loads(status_of(None, sets, None, None, True))
    finally:
        process.kill()
        process.wait()
    states = [row["state"] for row in again if row["step"].startswith("final real")]
    assert states == ["committed", "committed", "running", "ready"]


def test_status_of_the_last_study_and_of_a_changed_one() -> None:
    commit_all()
    run()
    assert "15 of 15 stages committed" in status()
    assert "2 of 15 stages committed" in status("finetune.steps=9", "search.epochs=9")
    assert status("finetune.steps=9", why="finetune").endswith("in finetune.steps 600 → 9")
    assert status("final.seeds=1", file=SMALL_STUDY).splitlines()[-1].startswith("11 of 12 stages committed")
    assert "15 of 15" in status()  # the status changed nothing
    said = json.loads(status_of(None, ("finetune.steps=9",), None, "finetune", True))
    assert [line.split(" in ")[1] for line in said["why"]] == ["finetune.steps 600 → 9"]


def test_status_of_changed_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").write_bytes(b"1")
    sets = ["dataset={source: folder, resolution: 32}", f"dataset.root={data}"]
    study = load_study(SMALL_STUDY, sets)
    artifacts = Artifacts(FolderStore(Path("store")), study.name, Path("cache"))
    fingerprints = current_fingerprints(study, Path("work/demo"))
    commit_steps(study, plan(study, fingerprints.source)[:1], artifacts)
    assert "committed under" in status(*sets, file=SMALL_STUDY, why="prepare")
    (data / "b.png").write_bytes(b"2")
    assert "differs from" in status(*sets, file=SMALL_STUDY, why="prepare")
    assert "in source_digest" in status(*sets, file=SMALL_STUDY, why="prepare")


def test_a_study_that_was_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="work: holds no study that was run; name one with --workdir"):
        status()
    assert "0 of 15 stages committed" in status(file=SMALL_STUDY)  # the named store may hold the study
    monkeypatch.delenv("TAILFILL_STORE")
    with pytest.raises(ConfigError, match="work/demo: holds no study that was run"):
        status(file=SMALL_STUDY)
    assert not Path("work/demo/s3").exists()


def test_a_damaged_work_directory() -> None:
    folder = Path("work/demo")
    folder.mkdir(parents=True)
    for text in ("", "[]", '{"study": {}}'):
        (folder / STUDY_FILE).write_text(text)
        with pytest.raises(ConfigError):
            status()


def test_the_work_directory_used_last_is_asked() -> None:
    commit_all()
    run()
    run_study(SMALL_STUDY, (), Path("work/other"), None, (), "json", False)
    assert latest_workdir(None) == Path("work/other")
