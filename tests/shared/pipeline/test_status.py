"""Tests the status of a study, and the reasons why a stage would run again, on real manifests in a folder store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.load import load_study
from shared.config.stages import STAGES
from shared.config.study import Study
from shared.errors import ConfigError
from shared.pipeline import status
from shared.pipeline.plan import Step, plan
from tests.support.committed import commit_steps
from tests.support.small_study import SMALL_STUDY

ARMS = (
    "experiments=[{name: real}, {name: a, images: real+synthetic, generate: {guidance: 1.0}, training: {dropout: 0.1}},"
    " {name: b, images: real+synthetic, generate: {guidance: 3.0}, training: {dropout: 0.2}}]"
)


@pytest.fixture
def artifacts(folder_store: FolderStore, tmp_path: Path) -> Artifacts:
    return Artifacts(folder_store, "demo", tmp_path / "cache")


def planned(*sets: str, source: str | None = None) -> tuple[Study, list[Step]]:
    study = load_study(SMALL_STUDY, sets)
    return study, plan(study, source)


def why(artifacts: Artifacts, stage: str, *sets: str, source: str | None = None) -> list[str]:
    study, steps = planned(*sets, source=source)
    return status.why(study, steps, artifacts, stage).splitlines()


def test_what_is_committed_what_is_ready_and_what_waits(artifacts: Artifacts) -> None:
    study, steps = planned()
    commit_steps(study, steps[:1], artifacts)
    rows = status.states(study, steps, artifacts)
    states = {row.step.label: row.state for row in rows}
    assert (states["prepare"], states["finetune"], states["tune real"]) == ("committed", "ready", "ready")
    assert states["generate"] == states["report"] == "waiting"
    text = status.describe(rows)
    assert "1 of 15 stages committed" in text
    assert "waiting    for finetune" in text
    assert "for final placebo 0, final placebo 1, final real 0 and others" in text
    as_json = {row["step"]: row for row in status.as_json(rows)}
    assert (as_json["prepare"]["state"], as_json["prepare"]["key"][:8] in text) == ("committed", True)
    assert as_json["generate"]["key"] is None


def test_why_nothing_moves(artifacts: Artifacts) -> None:
    study, steps = planned()

    def said(statuses: status.TaskStatuses, *resume_hint: str) -> list[str]:
        text = status.describe(status.states(study, steps, artifacts, statuses), *resume_hint)
        return [line for line in text.splitlines() if line.startswith("nothing moves")]

    commit_steps(study, steps[:1], artifacts)
    finetune = next(row.task for row in status.states(study, steps, artifacts) if row.step.stage == "finetune")
    assert finetune is not None
    idle = "nothing moves: no process works on finetune, judge; "  # searches have their own hint
    assert said({}) == [idle + "`tailfill run` continues it"]
    assert said({}, "see control") == [idle + "see control"]
    for state in ("running", "pending", "failed"):  # the step itself says why
        assert said({status.task_id("finetune", finetune.key): status.TaskStatus(state)}) == []
    commit_steps(study, [step for step in steps if step.stage not in ("final", "report")], artifacts)
    assert said({}) == [
        "nothing moves: no process works on final real 0, final synthetic 0, final placebo 0 and others; `tailfill run` continues it"
    ]
    commit_steps(study, steps, artifacts)
    assert said({}) == []


def test_nothing_has_changed(artifacts: Artifacts) -> None:
    commit_steps(*planned(), artifacts)
    (line,) = why(artifacts, "finetune")
    assert line.startswith("finetune: committed under ")
    assert "15 of 15 stages committed" in status.describe(status.states(*planned(), artifacts))


def test_a_changed_value_is_named_and_what_hangs_on_it_waits(artifacts: Artifacts) -> None:
    commit_steps(*planned(), artifacts)
    (line,) = why(artifacts, "finetune", "finetune.steps=9")
    assert line.startswith("finetune: differs from ")
    assert line.endswith("in finetune.steps 600 → 9")
    assert why(artifacts, "generate", "finetune.steps=9") == ["generate: its key is known once finetune is committed"]
    assert all("committed under" in line for line in why(artifacts, "tune", "final.epochs=9"))


def test_changed_data_are_named(artifacts: Artifacts) -> None:
    commit_steps(*planned(source="1" * 64), artifacts)
    (line,) = why(artifacts, "prepare", source="2" * 64)
    assert line.endswith(f"in source_digest {'1' * 8} → {'2' * 8}")
    commit_steps(*planned(source="2" * 64), artifacts)
    assert "differs from" not in why(artifacts, "finetune", source="2" * 64)[0]


def test_a_changed_input_is_named(artifacts: Artifacts) -> None:
    commit_steps(*planned(source="1" * 64), artifacts)
    study, steps = planned(source="2" * 64)
    commit_steps(study, steps[:1], artifacts)
    (line,) = why(artifacts, "finetune", source="2" * 64)
    assert "in input prepare " in line


def test_a_raised_version_is_named(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_steps(*planned(), artifacts)
    score = STAGES["score"]
    monkeypatch.setattr("shared.artifacts.keys.STAGES", {**STAGES, "score": replace(score, version=score.version + 7)})
    monkeypatch.setattr("shared.pipeline.status.STAGES", {**STAGES, "score": replace(score, version=score.version + 7)})
    (line,) = why(artifacts, "score")
    assert line.endswith(f"in version {score.version} → {score.version + 7}")


def test_an_arm_is_compared_with_itself(artifacts: Artifacts) -> None:
    commit_steps(*planned(ARMS), artifacts)
    first, second = why(artifacts, "generate", ARMS, "experiments.b.generate.fill_to=99")
    assert "committed under" in first
    assert second.endswith("in generate.fill_to 150 → 99")  # not in guidance, which only the other arm changes
    lines = why(artifacts, "final", ARMS, "final.epochs=8")
    assert [line.split(" in ")[1] for line in lines] == ["final.epochs 18 → 8"] * 6


def test_a_new_arm_was_never_committed(artifacts: Artifacts) -> None:
    commit_steps(*planned(ARMS), artifacts)
    third = "{name: c, images: real+synthetic, generate: {guidance: 9.0}}]"
    assert why(artifacts, "generate", ARMS[:-1] + f", {third}")[-1] == "generate: was never committed"


def test_a_renamed_arm_is_found_by_its_images(artifacts: Artifacts) -> None:
    commit_steps(*planned(), artifacts)
    renamed = ["experiments.synthetic.name=filled", "experiments.placebo.name=copied"]
    (line,) = why(artifacts, "finetune", *renamed, "finetune.steps=9")
    assert line.endswith("in finetune.steps 600 → 9")
    tunes = why(artifacts, "tune", *renamed, "experiments.filled.search.epochs=11", "verdict=none")
    assert [("committed" in line, "epochs 8 → 11" in line) for line in tunes] == [(1, 0), (0, 1), (1, 0)]


def test_stages_that_are_none_or_not_of_this_study(artifacts: Artifacts) -> None:
    with pytest.raises(ConfigError, match="--why train: there is no such stage; there are final, finetune"):
        why(artifacts, "train")
    assert why(artifacts, "score", "experiments=[{name: real}]") == ["score: is not part of this study"]
