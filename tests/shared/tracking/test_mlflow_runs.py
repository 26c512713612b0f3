"""Tests what an MLflow server, its own, has of a study."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shared.errors import ArtifactError, ConfigError, DataError, UnavailableError
from shared.settings import Settings
from shared.tracking.mlflow_runs import QUIET, MlflowRuns
from shared.tracking.records import RunRecord
from tests.support.local_commands import run
from tests.support.tracked_study import EPOCHS, TRIALS, picture
from tests.support.webhook_server import webhook_server

PASSWORD = "SECRET"
TOKEN = {"MLFLOW_TRACKING_TOKEN": "TOKEN-SECRET"}

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Removes what `MlflowRuns` sets for MLflow's client."""
    before = dict(os.environ)
    for name in QUIET:
        monkeypatch.delenv(name, raising=False)
    yield
    for name in (*QUIET, "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        if name not in before:
            os.environ.pop(name, None)


@pytest.fixture
def client(mlflow_url: str) -> MlflowClient:
    os.environ.update(QUIET)
    from mlflow.tracking import MlflowClient

    return MlflowClient(mlflow_url)


def runs_of(client: MlflowClient, study: str) -> dict[str, list[Run]]:
    """Returns the runs by stage; those of trials by `trial`."""
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    found: dict[str, list[Run]] = {}
    for each in client.search_runs([experiment.experiment_id]):
        stage = each.data.tags["tailfill.stage"]
        found.setdefault("trial" if "tailfill.trial" in each.data.tags else stage, []).append(each)
    return found


@pytest.mark.slow
def test_a_study_on_the_server(
    committed: Path,
    mlflow_url: str,
    client: MlflowClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_url)
    printed = run(as_json=True)
    assert capsys.readouterr().out == ""  # stdout is the command's own
    assert json.loads(printed)["digest"]
    found = runs_of(client, "demo")
    counts = {stage: len(each) for stage, each in found.items()}
    assert counts == {"final": 6, "tune": 3, "trial": 3 * TRIALS, "finetune": 1, "generate": 1, "score": 1, "report": 1}

    final = next(each for each in found["final"] if each.info.run_name == "final synthetic 1")
    assert final.info.status == "FINISHED"
    assert final.data.metrics["accuracy"] == 0.75
    assert final.data.metrics["classes/fabric/knit_ a_b/f1"] == 0.5
    assert final.data.params["training.lr"] == "0.003"
    assert final.data.params["repeat"] == "1"
    assert {"tailfill.key", "tailfill.digest", "tailfill.version", "tailfill.study"} <= final.data.tags.keys()
    curve = client.get_metric_history(final.info.run_id, "val_loss")
    assert [point.step for point in curve] == list(range(EPOCHS))

    searches = {each.info.run_id: each for each in found["tune"]}
    assert {each.data.tags["mlflow.parentRunId"] for each in found["trial"]} == set(searches)
    assert {each.info.status for each in found["trial"]} == {"FINISHED", "FAILED"}
    assert {each.info.status for each in searches.values()} == {"FINISHED"}
    trial = next(each for each in found["trial"] if each.data.tags["tailfill.trial"] == "1")
    assert trial.data.params == {"training.lr": "0.002", "training.dropout": "0.1"}
    assert trial.data.metrics["objective/val_macro_f1"] == pytest.approx(0.6)
    assert trial.info.end_time - trial.info.start_time == 3000

    def files(stage: str, folder: str | None = None) -> list[str]:
        return [file.path for file in client.list_artifacts(found[stage][0].info.run_id, folder)]

    assert files("report", "report") == ["report/index.html", "report/results.json"]
    assert files("finetune") == ["samples.png"]
    assert len(files("generate", "images")) == 16
    assert files("tune") == ["best.json", "importance.json"]
    assert (
        "<html>page" in Path(client.download_artifacts(found["report"][0].info.run_id, "report/index.html")).read_text()
    )

    begun = time.monotonic()
    run()
    assert time.monotonic() - begun < 60
    again = runs_of(client, "demo")
    assert {stage: len(each) for stage, each in again.items()} == counts
    assert len(client.get_metric_history(final.info.run_id, "val_loss")) == EPOCHS


def opened(url: str, study: str, **environment: str) -> MlflowRuns:
    return MlflowRuns(Settings.from_environment({"MLFLOW_TRACKING_URI": url, **environment}), study)


def test_a_run_that_was_cut_off_is_completed_and_not_begun_again(mlflow_url: str, client: MlflowClient) -> None:
    runs = opened(mlflow_url, "cut-off")
    tags = {"tailfill.study": "cut-off", "tailfill.stage": "tune", "tailfill.trial": "0"}
    record = RunRecord(
        "trial/a",
        "complete",
        "trial 0",
        "real",
        ("search/a", "tune real"),
        tags,
        metrics={"m": 1.0},
        images={"a.png": picture()},
    )
    runs._run(record)  # as if the process was killed now
    later = opened(mlflow_url, "cut-off")
    assert not later.logged("trial/a", "complete")
    later.log(record)
    later.log(
        replace(
            record,
            parent=None,
            identity="search/a",
            digest="d1",
            tags={k: v for k, v in tags.items() if k != "tailfill.trial"},
        )
    )
    assert opened(mlflow_url, "cut-off").logged("trial/a", "complete")
    found = runs_of(client, "cut-off")
    assert {stage: len(each) for stage, each in found.items()} == {"trial": 1, "tune": 1}
    assert found["trial"][0].data.tags["mlflow.parentRunId"] == found["tune"][0].info.run_id
    # a larger budget ends the same search with another result
    assert not opened(mlflow_url, "cut-off").logged("search/a", "d2")


def test_hostile_names_and_long_values(mlflow_url: str, client: MlflowClient) -> None:
    runs = opened(mlflow_url, "hostile")
    names = ["../x", "/abs", "a//b", "a\nb", "ü*:", "x" * 400, ".", "a/./b", " "]
    tags = {"tailfill.study": "hostile", "tailfill.stage": "final"}
    parameters = dict.fromkeys(names, "v" * 9000) | {f"p{n}": n for n in range(250)}
    curves = {"loss": [(step, float(step)) for step in range(2500)]}
    runs.log(RunRecord("final/x", "d", "n" * 900, "real", None, tags, parameters, dict.fromkeys(names, 1.0), curves))
    (found,) = runs_of(client, "hostile")["final"]
    assert len(found.data.params) > 250
    assert len(client.get_metric_history(found.info.run_id, "loss")) == 2500
    with pytest.raises(ArtifactError, match="the name"):
        runs.log(RunRecord("final/y", "d", "n", "real", None, tags, files={"../out": Path(__file__)}))


def test_a_deleted_experiment_says_so(mlflow_url: str, client: MlflowClient) -> None:
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(DataError, match=r"the experiment gone is deleted on http://127.0.0.1:.*; restore it there"):
        opened(mlflow_url, "gone").logged("a", "b")


@pytest.mark.parametrize("answer", [500, 401, 403, 404, 429, "reset", (302, {"Location": "http://127.0.0.1:1/"})])
def test_a_server_that_is_something_else(answer: object, caplog: pytest.LogCaptureFixture) -> None:
    with webhook_server(answer) as server, caplog.at_level(logging.DEBUG):
        url = server.address.replace("://", f"://user:{PASSWORD}@")
        runs = opened(url, "demo", **TOKEN)
        start = time.monotonic()
        with pytest.raises(
            UnavailableError, match=r"^the server at http://127.0.0.1:\d+ is unavailable \(.+\)$"
        ) as caught:
            runs.logged("a", "b")
    assert time.monotonic() - start < 20
    ours = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "SECRET" not in f"{caught.value} {ours} {runs.__dict__['_address']!r}"


def test_nobody_listens() -> None:
    start = time.monotonic()
    with pytest.raises(UnavailableError, match=r"the server at http://127.0.0.1:1 is unavailable"):
        opened(f"http://u:{PASSWORD}@127.0.0.1:1", "demo").logged("a", "b")
    assert time.monotonic() - start < 20


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from shared.tracking import mlflow_runs

    monkeypatch.setattr(mlflow_runs, "find_spec", lambda _: None)
    with pytest.raises(
        ConfigError,
        match=r"MLFLOW_TRACKING_URI: needs the package .* run `make venv`, or .* 'CHECKOUT\[trackers\]' .*; for control, `MLFLOW=1 make images`; or unset it",
    ):
        opened("http://h", "demo")
