"""Tests what `tailfill status` says about searches, and each reason for a lack of progress."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path
from typing import Any

import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import Manifest, Run
from shared.artifacts.s3 import S3Store
from shared.config.load import load_study
from shared.config.search import Budget, Search
from shared.config.study import Study
from shared.errors import UnavailableError
from shared.pipeline.plan import make_task, plan
from shared.pipeline.search_status import SearchState, as_json, describe, search_states, seconds_left, stall
from shared.pipeline.status import StepState, states
from shared.search.identity import search_name, settings_digest
from shared.search.monitor import SearchSnapshot
from shared.settings import Settings
from shared.stop import StopSignal
from tests.support.small_study import SMALL_STUDY

SEARCH = Search(max_failures=3)


def snapshot(**values: Any) -> SearchSnapshot:
    """Returns a search whose coordinator is running, and whose two workers have finished three of ten trials."""
    calm: dict[str, Any] = {
        "name": "s", "experiment": "real", "settings": settings_digest(SEARCH), "closed": None, "label": "", "position": 1, "steps": 1,
        "wanted": 10, "complete": 2, "pruned": 1, "failed": 0, "running": 0, "stale": 0, "queued": 0, "holders": [], "lost_worker": None,
        "reaped_in": None, "bests": (0.61234,), "front": None, "last_failure": None, "workers": 2, "resumes": 0, "losses": 0, "trial_seconds": 600.0,
        "running_seconds": 0.0, "used_seconds": 3600.0, "lost_seconds": 360.0, "gpu_seconds": 0.0, "gpu_lost_seconds": 0.0,
        "wall_seconds": 1000.0, "ticked_seconds": 1.0,
    }  # fmt: skip
    return SearchSnapshot(**{**calm, **values})


def state(found: SearchSnapshot, **values: Any) -> SearchState:
    return SearchState("tune real", ("val_macro_f1", "val_loss"), found, stall(found, SEARCH), 1200.0, None, **values)


RESUME = "`tailfill run` continues it"
SILENT = "no coordinator has sent a heartbeat for 1m30s"
STALE = "without a heartbeat from the worker (the last: node/7); queued again"
GPU_HOURS = "search.budget.gpu_hours of 1.0 are spent"
WALL_HOURS = "search.budget.wall_hours of 2.0 are over"
FAILURES, FAILURE = "4 trials failed, search.max_failures is 3", "diverged: the objective is nan in epoch 3"
DONE = "all trials are finished; their results are not committed yet"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, None),
        ({"running": 1}, None),
        ({"queued": 2, "ticked_seconds": 90}, f"{SILENT}; {RESUME}"),
        (
            {"running": 1, "ticked_seconds": 90},
            f"{SILENT}; the running trials end, nothing is queued after them; {RESUME}",
        ),
        (
            {"queued": 1, "workers": 0},
            "1 trial queued and no worker alive; one comes from another search, or starts when a slot of `tailfill run` is free, or by `kubectl scale`",
        ),
        ({"queued": 2}, "2 workers starting: training data are prepared before the first trial"),
        (
            {"stale": 2, "workers": 0, "queued": 1, "lost_worker": "node/7", "reaped_in": 61.0},
            f"2 trials {STALE} in 1m01s",
        ),
        ({"stale": 1, "lost_worker": "node/7", "reaped_in": 0.0}, f"1 trial {STALE} now"),
        ({"closed": GPU_HOURS}, f"the search is closed: {GPU_HOURS}"),
        ({"closed": GPU_HOURS, "running": 1}, None),
        ({"closed": WALL_HOURS, "queued": 3, "workers": 0}, f"the search is closed: {WALL_HOURS}"),
        (
            {"closed": FAILURES, "failed": 4, "last_failure": FAILURE},
            f"the search is closed: {FAILURES}; the last failure: {FAILURE}",
        ),
        ({"closed": "complete"}, DONE),
        ({"closed": "complete", "ticked_seconds": 90}, f"{DONE}; {SILENT}, {RESUME}"),
        ({"closed": "complete", "settings": "others"}, "the search was closed under other settings (complete)"),
    ],
)
def test_why_nothing_moves(values: dict[str, Any], reason: str | None) -> None:
    assert stall(snapshot(**values), SEARCH) == reason


def test_what_is_shown() -> None:
    text = describe([state(snapshot(running=2, queued=3, failed=1))])
    assert text.splitlines() == [
        "tune real: 3 of 10 trials done (1 pruned, 1 more failed), 2 running, 3 queued, 7 left; best val_macro_f1 0.6123",
        "  2 workers alive; 1.00 CPU-hours used, 0.10 of them lost; about 20m00s left",
    ]
    on_gpu = snapshot(
        gpu_seconds=1800.0, gpu_lost_seconds=36.0, queued=1, workers=0, steps=6, position=2, label="1-lr", bests=()
    )
    text = describe([dataclasses.replace(state(on_gpu), seconds_left=None, gpu_budget=(3.2, 10.0))])
    assert text.splitlines() == [
        "tune real: step 2 of 6 (1-lr): 3 of 10 trials done (1 pruned), 0 running, 1 queued, 7 left; no value yet",
        "  0 workers alive; 0.50 GPU-hours used, 0.01 of them lost; 3.20 of 10 GPU-hours of the study's budget spent; time left not known yet",
        "  nothing moves: 1 trial queued and no worker alive; "
        "one comes from another search, or starts when a slot of `tailfill run` is free, or by `kubectl scale`",
    ]  # fmt: skip
    several = snapshot(bests=(0.61234, 0.4), front=1)
    assert "left; best val_macro_f1 0.6123, best val_loss 0.4, 1 trial on the Pareto front\n" in describe(
        [state(several)]
    )
    assert as_json([state(several)])["tune real"]["best"] == 0.61234


@pytest.mark.parametrize(
    ("values", "budget", "spent", "left"),
    [
        ({"running": 2, "running_seconds": 400.0}, Budget(), 0.0, (7 * 600 - 400) / 2),
        ({"wanted": 4, "queued": 1}, Budget(), 0.0, 600.0),  # one trial keeps one worker busy
        ({"trial_seconds": None}, Budget(), 0.0, None),
        ({"workers": 0}, Budget(), 0.0, None),
        ({}, Budget(wall_hours=0.5), 0.0, 800.0),
        ({"gpu_seconds": 600.0}, Budget(gpu_hours=1), 3000.0, 300.0),  # two GPUs spend it
        ({}, Budget(gpu_hours=1), 3000.0, 2100.0),  # a search on CPUs uses no GPU hours
    ],
)
def test_time_left(values: dict[str, Any], budget: Budget, spent: float, left: float | None) -> None:
    search = SEARCH.model_copy(update={"budget": budget})
    assert seconds_left(snapshot(**values), search, spent) == left


def prepared(folder: Path) -> tuple[Study, Artifacts, list[StepState]]:
    """Returns the demo with its data set committed: the search on real images is ready, and the others wait."""
    study = load_study(SMALL_STUDY, ())
    steps = plan(study)
    artifacts = Artifacts(FolderStore(folder / "store"), study.name, folder / "cache")
    task = make_task(study, steps[0], {})
    run = Run(created="2026-11-24T08:00:00", seconds=1, device="cpu", device_seconds=0, code="", libraries={})
    artifacts.commit(
        Manifest(
            study=study.name, stage="prepare", key=task.key, version=1, config={}, inputs={}, files=(), summary={}, run=run
        )
    )  # fmt: skip
    return study, artifacts, states(study, steps, artifacts)


def test_searches_that_have_not_begun(tmp_path: Path, database_url: str) -> None:
    _, artifacts, rows = prepared(tmp_path)
    found = {search.step: search for search in search_states(rows, artifacts, database_url)}
    assert found["tune real"].stall == "no coordinator has begun it; `tailfill run` continues it"
    assert found["tune synthetic"].stall == "waits for finetune, generate, score"
    assert describe(list(found.values())) == f"tune real: nothing moves: {found['tune real'].stall}"
    assert as_json(list(found.values()))["tune synthetic"]["stall"] == "waits for finetune, generate, score"


def test_a_search_is_found_by_its_name(tmp_path: Path, database_url: str) -> None:
    from shared.config.stages import TuneConfig
    from shared.search.coordinator import Coordinator
    from shared.search.search_state import SearchSpec
    from shared.search.storage import Database

    _, artifacts, rows = prepared(tmp_path)
    task = next(row.task for row in rows if row.step.label == "tune real")
    assert task is not None
    config = task.config
    assert isinstance(config, TuneConfig)
    database = Database(database_url)
    spec = SearchSpec(search_name(task.study, config, task.inputs, 0), config.search, 0, "real")
    coordinator = Coordinator(database, spec, config.arm, _AfterTheFirstTick())
    with pytest.raises(TimeoutError):
        coordinator.run()
    database.close()
    (real, *_) = search_states(rows, artifacts, database_url)
    assert real.snapshot is not None
    assert (real.snapshot.experiment, real.snapshot.wanted) == ("real", config.search.trials)
    assert real.snapshot.queued == config.search.trials
    assert real.stall is not None
    assert "queued and no worker alive" in real.stall
    assert as_json([real])["tune real"]["left"] == config.search.trials


class _AfterTheFirstTick(StopSignal):
    def wait(self, seconds: float) -> bool:
        raise TimeoutError


def test_a_database_that_is_away_is_the_reason(tmp_path: Path) -> None:
    _, artifacts, rows = prepared(tmp_path)
    found = search_states(rows, artifacts, f"postgresql://u:p@127.0.0.1:{_unused_port()}/d")
    assert "PostgreSQL at 127.0.0.1:" in describe(found)
    assert all("is unavailable" in str(search.stall) for search in found)


def test_a_store_that_is_away_is_the_error() -> None:
    study = load_study(SMALL_STUDY, ())
    endpoint = f"http://127.0.0.1:{_unused_port()}"
    keys = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL_S3": endpoint}
    store = S3Store("bucket", "", Settings.from_environment(keys), attempts=1)
    with pytest.raises(UnavailableError, match=endpoint):
        states(study, plan(study), Artifacts(store, study.name, Path("unused")))


def _unused_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port
