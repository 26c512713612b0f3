"""Holds task files as a container may find them: references to tasks in the store, and what the store has in their place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.cli.stage import _Surroundings
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.stages import Stage
from shared.config.task import Task, TaskReference, block_json
from shared.digests import stream_digest
from shared.settings import Settings
from shared.stop import StopSignal
from tests.corpus.case import PLANTED, Case
from tests.support.configs import any_config

FIRST, SECOND = (
    Task(study="study", stage="final", key=letter * 64, config=any_config("final"), experiment="real")
    for letter in "ab"
)
STORED = "study/final/" + "a" * 64 + "/tasks/"


def _read(folder: Path, text: str | bytes, stage: Stage = "final") -> str:
    """Returns the keys of the tasks that a container finds in a file."""
    file = folder / "task.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    settings = Settings.from_environment(
        {"TAILFILL_STORE": str(folder / "store"), "TAILFILL_CACHE": str(folder / "cache")}
    )
    return " ".join(task.key[:1] for task in _Surroundings(settings, StopSignal()).read_tasks(file, stage))


def _saved(folder: Path, *tasks: Task) -> TaskReference:
    return Artifacts(FolderStore(folder / "store"), "study", folder / "cache").save_tasks(tasks)


def _reference(stage: Stage = "final", drop: str = "", **changes: Any) -> Callable[[Path], object]:
    """Returns an attempt to read the tasks of a reference that was changed."""

    def attempt(folder: Path) -> object:
        told = _saved(folder, FIRST, SECOND).model_dump(mode="json") | changes
        return _read(folder, json.dumps({name: value for name, value in told.items() if name != drop}), stage)

    return attempt


def _stored(change: Callable[[bytes], bytes | None]) -> Callable[[Path], object]:
    """Returns an attempt to read tasks whose object in the store was changed, or removed."""

    def attempt(folder: Path) -> object:
        reference = _saved(folder, FIRST)
        path = folder / "store" / STORED / f"{reference.digest}.json"
        changed = change(path.read_bytes())
        path.unlink() if changed is None else path.write_bytes(changed)
        return _read(folder, reference.model_dump_json())

    return attempt


def _twice(folder: Path) -> object:
    first, second = _saved(folder, FIRST), _saved(folder, FIRST)
    return f"{first == second} {len(list((folder / 'store' / STORED).iterdir()))} {_read(folder, second.model_dump_json())}"


def _of_another_version(folder: Path) -> object:
    store = FolderStore(folder / "store")
    text = FIRST.model_dump_json().replace('"config"', '"settings"').encode()
    digest = stream_digest([text])
    store.put(f"{STORED}{digest}.json", text)
    told = {"study": "study", "stage": "final", "keys": [FIRST.key], "digest": digest}
    return _read(folder, json.dumps(told))


def _file(text: str | bytes, stage: Stage = "final") -> Callable[[Path], object]:
    return lambda folder: _read(folder, text, stage)


REMEDY = "delete the Job, which control then makes again"

CASES = [
    Case("reference: of a block", _reference(), 0, ("a b",)),
    Case("reference: the same tasks are written once", _twice, 0, ("True 1 a",)),
    Case("task: in the file, as version 0.1.0 made it", _file(FIRST.model_dump_json()), 0, ("a",)),
    Case("tasks: in the file, as version 0.1.0 made them", _file(block_json([FIRST, SECOND])), 0, ("a b",)),
    Case("reference: to another stage", _reference(stage="score"), 2, ("is a task of the stage final, not of score",)),
    Case("reference: of a study that does not exist", _reference(study="other"), 2, ("not found", REMEDY)),
    Case("reference: of another first key", _reference(keys=["c" * 64]), 2, ("not found", REMEDY)),
    Case(
        "reference: of tasks that were never written", _reference(digest="c" * 64), 2, ("not found", "c" * 64, REMEDY)
    ),
    Case("reference: a digest of another length", _reference(digest="c"), 2, ("task.json: digest", "another version")),
    Case(
        "reference: a digest that leaves the folder", _reference(digest="../" * 20 + "abcd"), 2, ("task.json: digest",)
    ),
    Case("reference: a key that leaves the folder", _reference(keys=["../../secrets"]), 2, ("task.json: keys.0",)),
    Case("reference: a study that leaves the folder", _reference(study="../other"), 2, ("task.json: study",)),
    Case("reference: no key", _reference(keys=[]), 2, ("task.json: keys",)),
    Case("reference: keys that are no list", _reference(keys=7), 2, ("task.json: keys",)),
    Case("reference: an unknown field", _reference(kind=1), 2, ("task.json: kind",)),
    Case("reference: without a digest", _reference(drop="digest"), 2, ("task.json: digest",)),
    Case("reference: without a study", _reference(drop="study"), 2, ("task.json: study",)),
    Case("stored tasks: removed", _stored(lambda _: None), 2, ("not found", REMEDY)),
    Case("stored tasks: emptied", _stored(lambda _: b""), 2, ("has digest", "is not its name", REMEDY)),
    Case("stored tasks: cut short", _stored(lambda text: text[:-1]), 2, ("has digest", REMEDY)),
    Case(
        "stored tasks: one byte differs", _stored(lambda text: text.replace(b'"real"', b'"rael"')), 2, ("has digest",)
    ),
    Case("stored tasks: with a secret", _stored(lambda _: f'{{"a": "{PLANTED}"}}'.encode()), 2, ("has digest",)),
    Case("stored tasks: of another version", _of_another_version, 2, ("task.json", "written by another version")),
    Case("task file: nested without end", _file(b"[" * 99_999), 2, ("task.json",)),
    Case("task file: no text", _file(b"\xff\xfe"), 2, ("task.json",)),
    Case("task file: a number", _file("7"), 2, ("task.json",)),
]
