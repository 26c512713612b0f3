"""Writes the JSON schema of a study, which editors and the chart's `values.schema.json` use."""

from __future__ import annotations

import json

from shared.config.study import Study

FIRST = ("name", "seed", "dataset")
"""Lists the keys with which a study file begins; the sections that experiments may override follow."""


def study_schema() -> str:
    """Returns the schema as indented JSON, with its properties in the order in which people write a study."""
    study = Study.model_json_schema()
    properties = study["properties"]
    study["properties"] = {name: properties[name] for name in FIRST} | properties
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **study}, indent=2)
