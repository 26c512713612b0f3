"""The JSON schema says what the model says."""

from __future__ import annotations

import json

from shared.config.json_schema import study_schema


def test_the_schema_is_closed_and_described() -> None:
    schema = json.loads(study_schema())
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"name", "dataset", "finetune", "experiments"}
    assert schema["properties"]["seed"]["description"].startswith("The seed from which every random choice")
