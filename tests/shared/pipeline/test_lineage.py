"""Tests that a study's lineage is followed, and that every kind of damage is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.artifacts.artifacts import BLOBS, Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import Manifest
from shared.artifacts.store import Store
from shared.config.load import load_study
from shared.pipeline.lineage import Lineage, Place, studies, verify
from shared.pipeline.plan import plan
from tests.support.committed import commit_steps
from tests.support.small_study import SMALL_STUDY


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(f"{request.param}_store")
    return found


def commit(store: Store, tmp_path: Path, last: int | None = None) -> tuple[Artifacts, dict[str, Manifest]]:
    """Commits the small study, each step with a file of its own, but for the steps after `last`."""
    study = load_study(SMALL_STUDY, ())
    artifacts = Artifacts(store, study.name, tmp_path / "cache")
    steps = plan(study)[:last]

    def files(step: Any) -> dict[str, Path]:
        path = tmp_path / "file"
        path.write_text(step.id)
        return {"file": path}

    committed = commit_steps(study, steps, artifacts, files)
    return artifacts, {step.label: committed[step.id] for step in steps}


def check(artifacts: Artifacts) -> Lineage:
    return verify(artifacts, studies(artifacts.store, artifacts.study)[artifacts.study])


def place(manifest: Manifest) -> str:
    return str(Place(manifest.study, manifest.stage, manifest.key))


def rewrite(artifacts: Artifacts, manifest: Manifest, **changes: Any) -> None:
    changed = manifest.model_copy(update=changes)
    artifacts.store.put(place(manifest), changed.model_dump_json().encode())


def test_a_study_is_whole(store: Store, tmp_path: Path) -> None:
    artifacts, committed = commit(store, tmp_path)
    lineage = check(artifacts)
    assert lineage.whole
    assert lineage.report == committed["report"]
    assert {str(at) for at in lineage.manifests} == {place(manifest) for manifest in committed.values()}
    assert len(lineage.sizes) == len(lineage.manifests)


Damage = Callable[[Artifacts, dict[str, Manifest]], object]


def blob(label: str, data: bytes | None) -> Damage:
    def damage(artifacts: Artifacts, committed: dict[str, Manifest]) -> None:
        key = BLOBS + committed[label].files[0].digest
        artifacts.store.put(key, data) if data is not None else artifacts.store.delete(key)

    return damage


def manifest(label: str, **changes: Any) -> Damage:
    return lambda artifacts, committed: rewrite(artifacts, committed[label], **changes)


DAMAGE: dict[str, tuple[Damage, str, str]] = {
    "data gone": (blob("prepare", None), "missing", "'file' of prepare"),
    "weights gone": (blob("final real 0", None), "missing", "'file' of final"),
    "images cut short": (blob("generate", b""), "changed", "has 0 bytes, expected 64"),
    "images changed": (blob("generate", b"x" * 64), "changed", "has digest"),
    "a generator's result gone": (lambda a, c: a.store.delete(place(c["finetune"])), "missing", "was made from it"),
    "no manifest": (lambda a, c: a.store.put(place(c["finetune"]), b"{}"), "changed", "not a manifest"),
    "a login page": (lambda a, c: a.store.put(place(c["report"]), b"<html>"), "changed", "not a manifest"),
    "other files": (manifest("prepare", files=()), "unlinked", "was made from"),
    "other numbers": (manifest("final real 0", summary={"best": 1}), "unlinked", "has digest"),
    "other settings": (manifest("finetune", config={"seed": 1}), "changed", "not those of its key"),
    "another version": (manifest("report", version=99), "changed", "not those of its key"),
    "another study's": (manifest("report", study="other"), "unlinked", "it is the manifest of other/report"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(folder_store: FolderStore, tmp_path: Path, case: str) -> None:
    damage, kind, words = DAMAGE[case]
    artifacts, committed = commit(folder_store, tmp_path)
    damage(artifacts, committed)
    lineage = check(artifacts)
    assert not lineage.whole
    assert any(problem.kind == kind and words in problem.reason for problem in lineage.problems), lineage.problems


def test_damage_on_a_server_is_named(store: Store, tmp_path: Path) -> None:
    artifacts, committed = commit(store, tmp_path)
    for label, data in (("prepare", None), ("generate", b"x" * 64)):
        blob(label, data)(artifacts, committed)
    assert sorted(problem.kind for problem in check(artifacts).problems) == ["changed", "missing"]


def test_all_damage_is_named_at_once(folder_store: FolderStore, tmp_path: Path) -> None:
    artifacts, committed = commit(folder_store, tmp_path)
    for label in ("prepare", "finetune", "generate", "final real 1", "report"):
        blob(label, None)(artifacts, committed)
    assert [problem.kind for problem in check(artifacts).problems] == ["missing"] * 5


def test_parameters_are_those_of_the_search(folder_store: FolderStore, tmp_path: Path) -> None:
    from shared.pipeline.lineage import _key

    artifacts, committed = commit(folder_store, tmp_path)
    report = committed["report"]
    role, tune = next((r, m) for r in report.inputs for m in committed.values() if r.startswith("tune/") and m.key == report.inputs[r].key)  # fmt: skip
    other = tune.model_copy(update={"summary": {"parameters": {"training.learning_rate": 0.5}}})
    artifacts.store.put(place(other), other.model_dump_json().encode())
    inputs = {**report.inputs, role: report.inputs[role].model_copy(update={"digest": other.digest})}
    newer = report.model_copy(update={"inputs": inputs, "run": report.run.model_copy(update={"created": "9999"})})
    newer = newer.model_copy(update={"key": _key(newer)})  # digests and keys all fit; only the values do not
    artifacts.store.put(place(newer), newer.model_dump_json().encode())
    problems = check(artifacts).problems
    arm = role.removeprefix("tune/")
    finals = {place(committed[label]) for label in committed if label.startswith(f"final {arm} ")}
    assert {problem.object for problem in problems} >= finals
    assert {problem.kind for problem in problems} == {"unlinked"}
    assert all("the search tune" in problem.reason for problem in problems)


def test_a_study_in_progress_is_not_whole_though_nothing_is_damaged(folder_store: FolderStore, tmp_path: Path) -> None:
    artifacts, committed = commit(folder_store, tmp_path, last=-1)
    lineage = check(artifacts)
    assert (lineage.whole, lineage.report, lineage.problems) == (False, None, [])
    assert len(lineage.manifests) == len({m.key for m in committed.values()})
    blob("prepare", None)(artifacts, committed)
    assert [problem.kind for problem in check(artifacts).problems] == ["missing"]


def test_a_result_that_is_removed_after_it_was_listed(folder_store: FolderStore, tmp_path: Path) -> None:
    artifacts, committed = commit(folder_store, tmp_path, last=1)
    places = studies(folder_store)[artifacts.study]
    folder_store.delete(place(committed["prepare"]))
    assert [problem.reason for problem in verify(artifacts, places).problems] == ["it was removed after it was listed"]


def test_an_older_report_does_not_count(folder_store: FolderStore, tmp_path: Path) -> None:
    artifacts, committed = commit(folder_store, tmp_path)
    old = committed["report"].model_copy(
        update={"key": "0" * 64, "run": committed["report"].run.model_copy(update={"created": "2000"})}
    )
    artifacts.store.put(place(old), old.model_dump_json().encode())
    assert check(artifacts).whole


def test_a_circle_ends(folder_store: FolderStore, tmp_path: Path) -> None:
    artifacts, committed = commit(folder_store, tmp_path)
    report, prepare = committed["report"], committed["prepare"]
    circle = report.inputs["prepare"].model_copy(update={"stage": "report", "key": report.key})
    rewrite(artifacts, prepare, inputs={"a": circle})
    rewrite(artifacts, report, config={"experiments": [{"name": "real", "parameters_from": "real"}], "verdict": {}})
    assert not check(artifacts).whole


def test_studies_of_a_store(store: Store, tmp_path: Path) -> None:
    commit(store, tmp_path)
    store.put("other/prepare/k/manifest.json", b"{}")
    store.put("other/no-stage/k/manifest.json", b"{}")
    store.put("films/summer.mp4", b"")
    assert set(studies(store)) == {"demo", "other"}
    assert list(studies(store, "other")) == ["other"]
    assert studies(store, "oth") == {}
