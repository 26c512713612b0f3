"""Defines the task of one stage run: its part of the study, and where its inputs are.

In some stages, a process runs a block: several tasks, one after the other. It logs `BEGINS` and `ENDS` with a task's key, from which the
process that started it knows its progress.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from shared.config.base import Section
from shared.config.search import Resources
from shared.config.stages import STAGES, Stage, StageConfig
from shared.config.study import Name
from shared.names import Digest, PartName

BEGINS = "task begins"
"""Names the event that a process logs, with the `key`, when it begins a task of a block or, as a worker, turns to a task's search."""
ENDS = "task ends"
"""Names the event that it logs, with the `key`, when the task is committed or the search is closed."""


class Input(Section):
    """Refers to a committed artifact that a stage reads."""

    study: Name | None = Field(default=None, exclude_if=lambda study: study is None)
    """Names the study that committed it, if it is another one in the same store."""
    stage: Stage
    key: PartName
    digest: Digest
    """Gives the digest of its manifest's content. The lineage records it, and a changed input changes this stage's key through it."""


class Task(Section):
    """Describes one run of one stage: the content of the file that `tailfill stage NAME --config FILE` reads."""

    study: Name
    stage: Stage
    key: PartName
    experiment: str | None = None
    """Names the experiment in logs. Equal tasks of several experiments run once, under the name of the first."""
    config: StageConfig
    inputs: dict[str, Input] = Field(default_factory=dict)
    resources: Resources = Resources()
    expected_seconds: float | None = None
    """Estimates the seconds that it takes, from the pace of the search that found its parameters. It is None if there is no such
    search, and is in no key."""

    @field_validator("config", mode="before")
    @classmethod
    def _parse_config(cls, config: Any, info: ValidationInfo) -> Any:
        """Reads a mapping as the config class of the task's stage; returns a config object unchanged."""
        stage = info.data.get("stage")
        if stage is None or not isinstance(config, dict):
            return config
        try:
            return STAGES[stage].config.model_validate_json(json.dumps(config))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            path = ".".join(map(str, first["loc"]))
            raise PydanticCustomError(
                "stage_config", f"{path}: {first['msg']}".replace("{", "{{").replace("}", "}}")
            ) from error


class TaskReference(Section):
    """Refers to one or several tasks of a stage that are in the store: what a Job carries in place of them."""

    study: Name
    stage: Stage
    keys: tuple[PartName, ...] = Field(min_length=1)
    """Lists the tasks' keys, in the order in which a process runs them."""
    digest: Digest
    """Gives the digest of the tasks' JSON."""


_BLOCK = TypeAdapter(list[Task])


def block_json(tasks: Sequence[Task], indent: int | None = None) -> str:
    """Returns the JSON of a block: a list, or the task itself if there is only one."""
    texts = [task.model_dump_json(indent=indent, by_alias=True) for task in tasks]
    return texts[0] if len(texts) == 1 else f"[{','.join(texts)}]"


def block_of_json(text: bytes) -> list[Task]:
    """Returns the tasks of `block_json`; raises ValidationError if the JSON is not that of tasks."""
    return [Task.model_validate_json(text)] if text.lstrip().startswith(b"{") else _BLOCK.validate_json(text)


def reference_of_json(text: bytes) -> TaskReference | None:
    """Returns the reference to tasks in the store that the JSON is, or None if it is of something else; raises ValidationError if it is damaged."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return TaskReference.model_validate_json(text) if isinstance(tree, dict) and "keys" in tree else None


def references_of_json(text: str | bytes) -> list[tuple[Stage, str]]:
    """Returns the stage and key of each task of `block_json` or of a `TaskReference`, even if another version wrote it.

    There are none if the JSON is of something else.
    """
    try:
        tree = json.loads(text)
        if isinstance(tree, dict) and "keys" in tree:
            return [(tree["stage"], str(key)) for key in tree["keys"]]
        return [(task["stage"], str(task["key"])) for task in (tree if isinstance(tree, list) else [tree])]
    except (ValueError, KeyError, TypeError):
        return []
