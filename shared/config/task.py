"""Defines the task of one stage run: its part of the study, and where its inputs are."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from shared.config.base import Section
from shared.config.search import Resources
from shared.config.stages import STAGES, Stage, StageConfig
from shared.config.study import Name
from shared.names import Digest, PartName


class Input(Section):
    """A reference to a committed artifact that a stage reads."""

    study: Name | None = Field(default=None, exclude_if=lambda study: study is None)
    """The study that committed it, if it is another one in the same store."""
    stage: Stage
    key: PartName
    digest: Digest
    """The digest of its manifest's content. It records the lineage, and a changed input changes this stage's key by it."""


class Task(Section):
    """One run of one stage: the content of the file that `tailfill stage NAME --config FILE` reads."""

    study: Name
    stage: Stage
    key: PartName
    experiment: str | None = None
    """The experiment's name for logs. Equal tasks of several experiments run once, under the name of the first."""
    config: StageConfig
    inputs: dict[str, Input] = Field(default_factory=dict)
    resources: Resources = Resources()

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
