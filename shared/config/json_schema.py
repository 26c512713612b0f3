"""The study's JSON schema: for editors, and for the chart's `values.schema.json`."""

from __future__ import annotations

import json

from shared.config.study import Study

FIRST = ("name", "seed", "dataset")
"""What a study file begins with; the sections that experiments share with the study follow."""


def study_schema() -> str:
    """Returns the schema as indented JSON, its properties in the order in which people write a study."""
    study = Study.model_json_schema()
    properties = study["properties"]
    study["properties"] = {name: properties[name] for name in FIRST} | properties
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **study}, indent=2)
