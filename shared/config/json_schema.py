"""The study's JSON schema: for editors, and for the chart's `values.schema.json`."""

from __future__ import annotations

import json

from shared.config.study import Study


def study_schema() -> str:
    """The schema as indented JSON."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}
    return json.dumps(schema, indent=2)
