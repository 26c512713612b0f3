"""What one stage run is told: its part of the study, and where its inputs are."""

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
    """A committed artifact that a stage reads."""

    study: Name | None = Field(default=None, exclude_if=lambda study: study is None)
    """Where it is another study's, in the same store."""
    stage: Stage
    key: PartName
    digest: Digest
    """Of its manifest's content: lineage, and what makes a changed input change this stage's key."""


class Task(Section):
    """The file that `tailfill stage NAME --config FILE` reads."""

    study: Name
    stage: Stage
    key: PartName
    experiment: str | None = None
    """For people and logs; tasks of several experiments that are equal run once."""
    config: StageConfig
    inputs: dict[str, Input] = Field(default_factory=dict)
    resources: Resources = Resources()

    @field_validator("config", mode="before")
    @classmethod
    def _of_its_stage(cls, config: Any, info: ValidationInfo) -> Any:
        """Reads a config from JSON as that of the stage; a config is taken as it is."""
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
