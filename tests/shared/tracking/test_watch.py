"""Tests what is seen of a running study: trials that end in a real PostgreSQL, failures on a cluster, and stalls."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.load import load_study
from shared.pipeline.plan import plan
from shared.pipeline.scheduler import Scheduler
from shared.pipeline.search_status import SearchState
from shared.pipeline.session import Session
from shared.pipeline.status import StepState
from shared.settings import Settings
from shared.stop import StopSignal
from shared.tracking import watch as module
from shared.tracking.records import TrialsEnded, runs_of
from shared.tracking.watch import Watch
from shared.tracking.webhook import Happening
from tests.shared.pipeline.test_scheduler import Instant
from tests.shared.pipeline.test_search_status import snapshot
from tests.support.small_study import SMALL_STUDY

SMALL = load_study(SMALL_STUDY, ["final.seeds=1"])


def rows_before_the_searches(folder: Path) -> tuple[Session, list[StepState]]:
    """Returns the states of a run that has begun its searches and committed everything before them."""
    artifacts = Artifacts(FolderStore(folder / "store"), SMALL.name, folder / "cache")
    settings = Settings.from_environment({"DATABASE_URL": "postgresql://u:p@127.0.0.1:1/d"})

    class Searching(Instant):
        def advance(self) -> Any:
            self.open, held = [o for o in self.open if o[0].stage != "tune"], self.open
            if self.open or not any(step.stage == "tune" for step, _ in held):
                return super().advance()
            scheduler.stop.set()
            return []

    scheduler = Scheduler(SMALL, plan(SMALL), artifacts, Searching(artifacts), lambda _: None, StopSignal())
    with pytest.raises(Exception, match="stopped by a signal"):
        scheduler.run()
    return Session(SMALL, plan(SMALL), artifacts, settings), scheduler.rows()


class Seen:
    """Collects what a watch sees."""

    def __init__(self) -> None:
        self.trials = list[TrialsEnded]()
        self.happened = list[Happening]()


def states(monkeypatch: pytest.MonkeyPatch, found: Sequence[SearchState]) -> None:
    monkeypatch.setattr(module, "search_states", lambda *_: list(found))


def state(step: str, stall: str | None, **values: Any) -> SearchState:
    return SearchState(step, ("val_loss",), snapshot(**values), stall, None, None)


def test_a_stall_is_reported_after_a_while_without_any_movement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 0.2)
    session, rows = rows_before_the_searches(tmp_path)
    seen = Seen()
    watch = Watch(session, lambda: rows, None, seen.happened.append)
    labels = [row.step.label for row in rows if row.task is not None and row.manifest is None]
    assert labels == ["tune real", "tune synthetic", "tune placebo"]
    stalled = [state(label, "2 trials queued and no worker alive") for label in labels]

    def look(found: Sequence[SearchState]) -> None:
        states(monkeypatch, found)
        for _ in range(2):
            watch.look()
            time.sleep(0.25)

    look([*stalled[:2], state("tune placebo", None)])  # one search moves
    assert seen.happened == []
    look(stalled)
    watch.look()
    assert {(each.event, each.sentence) for each in seen.happened} == {
        ("stalled", "nothing moves: tune real: 2 trials queued and no worker alive")
    }
    assert len({each.identity for each in seen.happened}) == 1
    look([state(label, "no worker alive", complete=3) for label in labels])  # it moved in between: another stall
    watch.look()
    assert len({each.identity for each in seen.happened}) == 2


def test_a_step_that_runs_is_movement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 0.0)
    session, rows = rows_before_the_searches(tmp_path)
    running = [replace(row, manifest=None) if row.step.stage == "generate" else row for row in rows]
    seen, failed = Seen(), dict[str, tuple[str, str]]()
    watch = Watch(session, lambda: running, None, seen.happened.append, lambda: failed)
    states(monkeypatch, [state("tune real", "no worker alive")])
    for _ in range(3):
        watch.look()
    assert seen.happened == []
    failed |= {row.step.id: ("exit code 2: no such file", "100.0") for row in running if row.step.stage == "generate"}
    for _ in range(3):
        watch.look()
    assert {each.event for each in seen.happened} == {"failed", "stalled"}
    failure = next(each for each in seen.happened if each.event == "failed")
    assert (failure.step, failure.sentence) == ("generate", "generate failed: exit code 2: no such file")
    assert len({each.identity for each in seen.happened if each.event == "failed"}) == 1


def test_trials_are_seen_when_they_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, rows = rows_before_the_searches(tmp_path)
    seen, read = Seen(), list[str]()

    def ended(_: str, name: str, search: object) -> list[dict[str, Any]]:
        read.append(name)
        return [{"number": 0, "state": "complete", "value": 0.5, "curve": [0.1], "training.lr": 0.1, "seconds": 1.0}]

    monkeypatch.setattr("shared.search.results.ended_trials", ended)
    watch = Watch(session, lambda: rows, seen.trials.append, None)
    counts = {"complete": 0, "pruned": 0, "failed": 0}
    for complete in (0, 1, 1, 2):
        states(monkeypatch, [state("tune real", None, **{**counts, "complete": complete})])
        watch.look()
    assert [event.label for event in seen.trials] == ["tune real", "tune real"]
    assert len(set(read)) == 1
    (run,) = runs_of(seen.trials[0], session.artifacts, lambda *_: False)
    assert run.identity == f"trial/{read[0]}//0"
    record = run.read()
    assert record.parent == (f"search/{read[0]}", "tune real")
    assert record.curves == {"val_macro_f1": [(0, 0.1)]}
    assert list(runs_of(seen.trials[0], session.artifacts, lambda *_: True)) == []
