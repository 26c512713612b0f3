"""Tests that the JSON schema agrees with the model."""

from __future__ import annotations

import json

from shared.config.json_schema import study_schema
from shared.config.study import Overridable


def test_the_schema_is_closed_and_described() -> None:
    schema = json.loads(study_schema())
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"name", "dataset", "finetune", "experiments"}
    assert schema["properties"]["seed"]["description"].startswith("Seeds every random choice")


def test_every_section_and_key_has_a_meaning() -> None:
    """A key without a docstring would be an empty row in docs/study-file.md, in the chart's schema and in editors."""
    schema = json.loads(study_schema())
    experiment = schema["$defs"]["Experiment"]["properties"]
    for section in Overridable.model_fields:
        del experiment[section]  # it is described at the top level
    models = {"Study": schema, **schema["$defs"]}
    undescribed = [name for name, model in models.items() if not model.get("description")]
    undescribed += [
        f"{name}.{key}"
        for name, model in models.items()
        for key, node in model["properties"].items()
        if not node.get("description")
    ]
    assert not undescribed
