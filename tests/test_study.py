"""Tests a whole small study by the installed command, on its own PostgreSQL and S3 server: it is killed, continued, and then complete.

It runs in a folder whose modules have the names of installed ones.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.hostile import HostileFolder
from tests.support.hub_server import COMMIT, serve_hub
from tests.support.image_files import grey_folders
from tests.support.parquet_files import write_parquet
from tests.support.small_study import SMALL_STUDY

ROOT = Path(__file__).parents[1]
SMALL = [
    "dataset.train=300", "dataset.val=60", "dataset.test=60", "dataset.rare_eval=4", "rare.below=12",
    "finetune.steps=12", "finetune.width=8", "finetune.checkpoint_every=2", "finetune.batch_size=8",
    "generate.fill_to=14", "generate.steps=3", "generate.batch_size=8", "score.epochs=1", "accept={plausibility: [0, 0.9999], copies: allow}",
    "search.trials=2", "search.epochs=2", "search.workers=1", "final.epochs=2", "final.seeds=2", "training.batch_size=64",
]  # fmt: skip


OF_FOLDS = [
    "rare.below=30", "finetune.steps=8", "finetune.width=8", "finetune.batch_size=8", "generate={fill_to: 16, cap: 1, steps: 2, batch_size: 8}",
    "score.epochs=1", "accept={plausibility: [0, 0.9999], copies: allow}", "verdict={provisional: true}", "search.trials=4", "search.epochs=1",
    "search.pruner=none", "search.workers=1", "final={epochs: 1, seeds: 2}", "training.batch_size=32", "classifier.head=[]",
]  # fmt: skip


def tailfill(*arguments: str) -> list[str]:
    return [str(Path(sys.executable).with_name("tailfill")), *arguments]


def environment() -> dict[str, str]:
    named = ("DATABASE_URL", "TAILFILL_STORE", "TAILFILL_CACHE", "AWS_ENDPOINT_URL_S3")
    return {name: value for name, value in os.environ.items() if name not in named}


def run_command(workdir: Path, *sets: str) -> list[str]:
    settings = [part for setting in (*SMALL, *sets) for part in ("--set", setting)]
    return tailfill("run", str(SMALL_STUDY), "--workdir", str(workdir), *settings)


def started_by(workdir: Path) -> list[psutil.Process]:
    """Returns every process that has the work directory on its command line, including servers and stages."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(workdir) in part for part in process.cmdline()):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def start(command: list[str], log: Path, folder: Path, variables: dict[str, str]) -> subprocess.Popen[str]:
    with log.open("w") as stderr:
        return subprocess.Popen(command, cwd=folder, env=variables, stdout=subprocess.DEVNULL, stderr=stderr, text=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_from_a_kill_to_its_report(tmp_path: Path) -> None:
    workdir, log = tmp_path / "work", tmp_path / "log"
    hostile = HostileFolder(tmp_path / "user")
    killed = start(run_command(workdir), log, hostile.folder, environment())
    assert wait_for(lambda: "training the pixel generator 12/12" in log.read_text(), 240), log.read_text()[-2000:]
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert wait_for(lambda: not started_by(workdir), 5), [p.cmdline() for p in started_by(workdir)]

    interrupted = start(run_command(workdir), log, hostile.folder, environment())
    assert wait_for(lambda: "committed" in log.read_text(), 60), log.read_text()[-2000:]
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(5) == 143
    assert wait_for(lambda: not started_by(workdir), 1), [p.cmdline() for p in started_by(workdir)]

    ended = subprocess.run(
        run_command(workdir), cwd=hostile.folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    assert "prepare: committed already" in ended.stderr
    page = Path(ended.stdout.strip())
    assert "</html>" in page.read_text()
    results = json.loads((page.parent / "results.json").read_text())
    assert {row["name"] for row in results["experiments"]} == {"real", "synthetic", "placebo"}
    assert not started_by(workdir)

    again = subprocess.run(
        run_command(workdir), cwd=hostile.folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr[-4000:]
    assert "0 stages run, 15 found committed" in again.stderr
    _look_around(workdir, tmp_path, hostile.folder)
    assert hostile.imported == []


def _look_around(workdir: Path, tmp_path: Path, folder: Path) -> None:
    """Checks that status, --why, report and export read the committed results."""

    def answer(*arguments: str) -> str:
        command = tailfill(*arguments, "--workdir", str(workdir))
        ended = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert "15 of 15 stages committed" in answer("status")
    assert "committed under" in answer("status", "--why", "finetune")
    assert "answer" in json.loads(answer("report", "--json"))
    answer("export", "generated", str(tmp_path / "generated"))
    lines = (tmp_path / "generated" / "metadata.jsonl").read_text().splitlines()
    assert {"file_name", "seed", "accepted"} <= json.loads(lines[0]).keys()


def run_over_a_kill(command: list[str], workdir: Path, folder: Path, variables: dict[str, str], committed: str) -> None:
    """Starts a study, kills it when its log says `committed`, and runs it again to its end."""
    log = folder / "log"
    with start(command, log, folder, variables) as killed:
        wait_for(lambda: committed in log.read_text() or killed.poll() is not None, 400)
        os.kill(killed.pid, signal.SIGKILL)
    assert committed in log.read_text(), log.read_text()[-4000:]
    assert wait_for(lambda: not started_by(workdir), 5), [p.cmdline() for p in started_by(workdir)]
    with start(command, log, folder, variables) as continued:
        assert continued.wait() == 0, log.read_text()[-4000:]
    assert f"{committed} already" in log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_of_a_hubs_images_whose_repetitions_test_on_a_fold_each(tmp_path: Path) -> None:
    files = sorted(grey_folders(tmp_path / "data", light=40, dark=40, grey=14).glob("*/*.png"))
    classes = ["dark", "grey", "light"]
    labels = [classes.index(file.parent.name) for file in files]
    write_parquet(tmp_path / "hub" / "images.parquet", [file.read_bytes() for file in files], labels, classes)
    workdir = tmp_path / "work"
    dataset = (
        f"dataset={{source: parquet, root: 'hf://some/greys@{COMMIT}', groups: {{label: {{column: label}}}}, resolution: 32, "
        "leak_distance: 0, split: {test: folds}}"
    )
    settings = [part for setting in (dataset, *OF_FOLDS) for part in ("--set", setting)]
    command = tailfill("run", str(SMALL_STUDY), "--workdir", str(workdir), *settings)
    with serve_hub({"datasets/some/greys": tmp_path / "hub"}) as hub:
        variables = environment() | {"HF_ENDPOINT": hub.url, "TAILFILL_CACHE": str(tmp_path / "cache")}

        run_over_a_kill(command, workdir, tmp_path, variables, "generate 1: committed")
        assert hub.asked.count("images.parquet") == 2  # HEAD and GET, once in both runs
    again = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert "0 stages run, 20 found committed" in again.stderr
    _check_folds(json.loads((workdir / "report" / "results.json").read_text()))

    def answer(*arguments: str) -> str:
        command = tailfill(*arguments, "--workdir", str(workdir))
        ended = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert "whole: 20 results" in answer("verify")
    answer("export", "generated", str(tmp_path / "generated"), "--experiment", "synthetic", "--review")
    rows = [json.loads(line) for line in (tmp_path / "generated" / "metadata.jsonl").read_text().splitlines()]
    assert {row["file_name"].split("/")[0] for row in rows} == {"pool-0", "pool-1"}
    answer("export", "dataset", str(tmp_path / "exported"))
    assert json.loads(answer("predict", str(files[0]), "--ensemble", "--experiment", "real", "--json"))


def _check_folds(results: dict[str, Any]) -> None:
    """Checks that each image was tested on once."""
    assert results["test_design"] == "folds"
    (arm,) = results["verdict"]["arms"]
    against = arm["against_baseline"]
    assert (against["test_units"], against["repeats"], against["freedom"]) == (94, [0, 1], 1)
    assert results["classes"]["readings"]["label/grey"]["test_images"] == 14
    assert len(results["experiments"][1]["by_repeat"]) == 2
