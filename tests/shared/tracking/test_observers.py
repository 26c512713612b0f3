"""Tests a whole study that trackers and a webhook follow: twice, with none of them there, and with none of them asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import Manifest, Run
from shared.config.load import load_study
from shared.errors import ConfigError, Stopped, UnavailableError
from shared.pipeline.plan import make_task, plan
from shared.pipeline.session import Session
from shared.settings import Settings
from shared.stop import StopSignal
from shared.tracking import delivery, observers
from shared.tracking.observers import UNTRACKED, check_trackers, observing
from tests.support.local_commands import run
from tests.support.small_study import SMALL_STUDY
from tests.support.trained_study import study_settings, write_images
from tests.support.webhook_server import webhook_server

SMALL = load_study(SMALL_STUDY, ())
PASSWORD = "SECRET"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "WAITS", (0.05,))


def session(folder: Path, **environment: str) -> Session:
    artifacts = Artifacts(FolderStore(folder / "store"), SMALL.name, folder / "cache")
    return Session(SMALL, plan(SMALL), artifacts, Settings.from_environment(environment))


def posted(server: Any) -> list[tuple[str, str]]:
    bodies = [json.loads(body) for _, _, body in server.posts]
    return [(body["event"], body["sentence"]) for body in bodies]


def test_a_finished_study_is_news_once(committed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with webhook_server() as server:
        monkeypatch.setenv("TAILFILL_WEBHOOK", f"{server.address}/SECRET")
        run()
        run()
    assert posted(server) == [("done", "the study is done.")]


def test_what_a_failure_is(tmp_path: Path) -> None:
    with webhook_server() as server:
        opened = session(tmp_path, TAILFILL_WEBHOOK=server.address)

        def fail(error: BaseException, restarted: str | None) -> None:
            with pytest.raises(type(error)), observing(opened, StopSignal(), restarted):
                raise error

        for _ in range(2):  # a person runs it twice
            fail(ConfigError("x: is wrong; fix it"), None)
        for _ in range(3):  # Kubernetes restarts it
            fail(ConfigError("y: is wrong; fix it"), "digest 0")
            fail(UnavailableError(f"S3 is away ({time.time()})"), "digest 0")
        fail(ConfigError("y: is wrong; fix it"), "digest 1")  # somebody changed the study
        fail(Stopped("stopped by a signal"), None)
        fail(KeyboardInterrupt(), None)
        fail(ValueError(), None)
    events = posted(server)
    assert [event for event, _ in events] == ["failed", "failed", "failed", "stalled", "failed", "failed"]
    assert events[0][1] == "the study failed: x: is wrong; fix it"
    assert events[3][1].startswith("nothing moves: S3 is away")
    assert events[5][1] == "the study failed: ValueError"


def test_a_spent_budget(tmp_path: Path) -> None:
    with (
        webhook_server() as server,
        observing(session(tmp_path, TAILFILL_WEBHOOK=server.address), StopSignal()) as observed,
    ):
        step = next(step for step in plan(SMALL) if step.stage == "tune")
        manifests = {need.id: _manifest("prepare", {}) for need in step.needs.values()}
        task = make_task(SMALL, step, manifests)
        for ended in (
            "complete",
            "4 trials failed, search.max_failures is 3",
            "search.budget.gpu_hours of 2.0 are spent",
        ):
            observed.committed(step, task, _manifest("tune", {"ended": ended}, key=f"k{len(ended)}"))
    assert posted(server) == [("budget spent", "tune real ended early: search.budget.gpu_hours of 2.0 are spent")]


def _manifest(stage: Any, summary: dict[str, Any], key: str = "k") -> Any:
    ran = Run(created="2026-11-24T08:00:00+00:00", seconds=1, device="cpu", device_seconds=0, code="c", libraries={})
    return Manifest(
        study="demo", stage=stage, key=key, version=1, config={}, inputs={}, files=(), summary=summary, run=ran
    )


@pytest.mark.parametrize("answer", ["hang", 500, "reset"])
def test_none_of_them_is_there(
    committed: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: object
) -> None:
    monkeypatch.setattr(observers, "END_SECONDS", 20.0)
    (committed / "board").mkdir()
    with webhook_server(answer) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address.replace("://", f"://u:{PASSWORD}@"))
        monkeypatch.setenv("TAILFILL_WEBHOOK", f"{server.address}/SECRET")
        monkeypatch.setenv("TAILFILL_TENSORBOARD", str(committed / "board"))
        start = time.monotonic()
        printed = json.loads(run(as_json=True))
        assert time.monotonic() - start < 20 + 15
    assert printed["report"] == "work/demo/report/index.html"
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("tailfill.")]
    assert any(line.startswith("MLflow: ") and line.endswith("when it is run again") for line in ours)
    assert "SECRET" not in "".join(ours)
    assert list((committed / "board").rglob("events*"))  # the one that is there has everything
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        os.environ.pop(name, None)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MLFLOW_TRACKING_URI", "sqlite:///SECRET.db", "must begin with http:// or https://"),
        ("MLFLOW_TRACKING_URI", "databricks-SECRET", "must begin with http"),
        ("TAILFILL_WEBHOOK", "hooks.slack.com/SECRET", "must begin with http"),
        ("TAILFILL_TENSORBOARD", "gs://bucket/x", "must be a folder on this machine"),
        ("TAILFILL_TENSORBOARD", "/proc/nothing", "cannot be written"),
    ],
)
def test_a_wrong_value_ends_the_command_before_anything_runs(
    committed: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"environment variable {name}: .*{words}") as caught:
        run()
    assert "SECRET" not in str(caught.value)
    assert not Path("work").exists()


def test_nothing_is_imported_or_started_unless_asked(committed: Path) -> None:
    code = """
import sys, threading
from tests.support.local_commands import run
run()
print([name for name in sys.modules if name.split(".")[0] in ("mlflow", "tensorboard", "optuna", "torch")])
print([each.name for each in threading.enumerate()])
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "['MainThread']"]


def test_a_stage_gets_none_of_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in UNTRACKED:
        monkeypatch.setenv(name, "https://h/SECRET")
    settings = Settings.from_environment({**os.environ, **UNTRACKED})
    assert (settings.mlflow_uri, settings.webhook, settings.tensorboard, settings.mlflow_secrets) == (
        None,
        None,
        None,
        (),
    )
    check_trackers(settings, "s")


# -- the installed command


def command(root: Path, **environment: str) -> subprocess.Popen[str]:
    """Starts `tailfill run` on a study without a search, whose store is a folder."""
    if not (root / "study.yaml").exists():
        write_images(root / "data")
        tree = study_settings(str(root / "data"), verdict="none")  # type: ignore[arg-type]
        (root / "study.yaml").write_text(json.dumps(tree))
    mine = {name: value for name, value in os.environ.items() if name not in UNTRACKED}
    mine |= {"TAILFILL_STORE": str(root / "store"), "TAILFILL_CACHE": str(root / "cache"), **environment}
    mine["DATABASE_URL"] = "postgresql://u:p@127.0.0.1:1/d"
    arguments = [str(Path(sys.executable).with_name("tailfill")), "run", "study.yaml", "--json"]
    return subprocess.Popen(arguments, cwd=root, env=mine, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stage_environments(run: int) -> list[dict[str, str]]:
    """Returns the environments of the stages' processes that a run has now."""
    found = []
    for process in psutil.Process(run).children(recursive=True):
        with suppress(psutil.Error):  # it has ended
            if "stage" in process.cmdline():
                found.append(process.environ())
    return found


@contextmanager
def killed(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Yields a process that does not outlive the block, so that a test that fails does not fail others too."""
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_with_trackers_that_are_not_there_has_the_same_result(tmp_path: Path, mlflow_url: str) -> None:
    from mlflow.tracking import MlflowClient

    digests = []
    board, dead = tmp_path / "board", f"http://u:{PASSWORD}@127.0.0.1:1"
    with webhook_server() as server:
        for folder, url, hook in (
            ("with", mlflow_url, f"{server.address}/SECRET"),
            ("without", dead, f"{dead}/SECRET"),
        ):
            (tmp_path / folder).mkdir()
            ran = command(
                tmp_path / folder,
                MLFLOW_TRACKING_URI=url,
                TAILFILL_WEBHOOK=hook,
                TAILFILL_TENSORBOARD=str(board / folder),
            )
            out, err = ran.communicate(timeout=600)
            assert ran.returncode == 0, err
            assert json.loads(out)["report"]
            finals = (tmp_path / folder / "store" / "squares" / "final").rglob("manifest.json")
            manifests = [Manifest.model_validate_json(path.read_bytes()) for path in finals]
            digests.append(
                {each.file(name).digest for each in manifests for name in ("metrics.json", "model.safetensors")}
            )
            assert "SECRET" not in out + err
    assert digests[0] == digests[1]
    assert len(digests[0]) == 8
    assert "MLflow: the server at http://127.0.0.1:1 is unavailable" in err
    assert "http://127.0.0.1:1 did not take it in 4 attempts" in err
    assert posted(server)[-1][0] == "done"
    client = MlflowClient(mlflow_url)
    experiment = client.get_experiment_by_name("squares")
    assert experiment is not None
    names = sorted(each.info.run_name for each in client.search_runs([experiment.experiment_id]))
    assert names == ["final other 0", "final other 1", "final real 0", "final real 1", "report"]
    assert len(list((board / "without").rglob("events.*"))) == len(list((board / "with").rglob("events.*"))) == 5
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"SECRET" in path.read_bytes()]


@pytest.mark.slow
def test_a_signal_waits_for_no_server_that_hangs_and_stages_know_none(tmp_path: Path) -> None:
    with (
        webhook_server("hang") as server,
        killed(command(tmp_path, MLFLOW_TRACKING_URI=server.address, TAILFILL_WEBHOOK=server.address)) as ran,
    ):
        assert ran.stderr is not None
        for line in ran.stderr:
            if "prepare: committed" in line:
                break
        stages = list[dict[str, str]]()
        while not (server.posts and stages) and ran.poll() is None:  # MLflow's client asks for the experiment
            stages += stage_environments(ran.pid)
            time.sleep(0.1)
        assert server.posts
        assert stages
        assert not {value for each in stages for value in each.values() if server.address in value}
        assert server.address in str(psutil.Process(ran.pid).environ())
        ran.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert ran.wait(30) == 143
        assert time.monotonic() - begun < 10
