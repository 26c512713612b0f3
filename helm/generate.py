"""Writes every file, or part of one, that is made from elsewhere (`make generate`): from the study's model, the table of stages, values.yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from kubernetes.client.models.v1_container import V1Container
from kubernetes.client.models.v1_pod_spec import V1PodSpec

from helm.study_reference import study_reference
from shared.config.json_schema import study_schema
from shared.config.stages import STAGES

CHART = Path(__file__).parent
ROOT = CHART.parent


def generated() -> dict[Path, str]:
    """Returns what each file should hold that is generated, wholly or in part."""
    values = values_table((CHART / "values.yaml").read_text(encoding="utf-8"))
    return {
        CHART / "values.schema.json": values_schema(),
        CHART / "files" / "demo-study.yaml": (ROOT / "studies" / "demo.yaml").read_text(encoding="utf-8"),
        CHART / "files" / "stages.json": stages_json(),
        ROOT / "images" / "docker-bake.hcl": with_stages(
            "images/docker-bake.hcl", r"matrix += \{ stage = \[(.*?)\] \}", "{}"
        ),
        ROOT / "pyproject.toml": with_stages(
            "pyproject.toml", r'type = "independence"\nmodules = \[(.*?)\]', "jobs.{}"
        ),
        CHART / "README.md": with_part(CHART / "README.md", "values", values),
        ROOT / "docs" / "study-file.md": with_part(
            ROOT / "docs" / "study-file.md", "study", study_reference(json.loads(study_schema()))
        ),
    }


def with_part(file: Path, name: str, part: str) -> str:
    """Returns a file's text with another part between the comments that mark it."""
    begin, end = f"<!-- {name}: made by `make generate` -->\n", f"<!-- /{name} -->"
    before, found, rest = file.read_text(encoding="utf-8").partition(begin)
    if not found or end not in rest:
        raise ValueError(f"{file}: lacks the line {begin.strip()}, or {end} after it")
    return before + begin + part + end + rest.partition(end)[2]


def stages_json() -> str:
    """Returns what the chart must know of each stage: whether it may hold a GPU, is sharded, needs the database, goes online."""
    table = {
        stage: {"device": kind.on_device, "sharded": kind.sharded, "database": kind.database, "online": kind.online}
        for stage, kind in STAGES.items()
    }
    return json.dumps(table, indent=1) + "\n"


def with_stages(file: str, pattern: str, name: str) -> str:
    """Returns a file's text with the list of all stages in the one place that matches the pattern's group."""
    text = (ROOT / file).read_text(encoding="utf-8")
    places = list(re.finditer(pattern, text, re.DOTALL))
    if len(places) != 1:
        raise ValueError(f"{file}: {pattern} matches {len(places)} times, not once")
    listed = ", ".join(f'"{name.format(stage)}"' for stage in STAGES)
    return text[: places[0].start(1)] + listed + text[places[0].end(1) :]


def values_schema() -> str:
    """Returns `schema.yaml` with what others know: the Study's schema, whose definitions move to the root, as its references expect; the names of the
    stages' images; and those of the fields of a Pod."""
    schema = yaml.safe_load((CHART / "schema.yaml").read_text(encoding="utf-8"))
    digests = schema["properties"]["image"]["properties"]["digests"]["properties"]
    digests |= dict.fromkeys(STAGES, digests["control"])
    for part, model in (("podSpec", V1PodSpec), ("container", V1Container)):
        schema["$defs"][part]["propertyNames"] = {"enum": sorted(model.attribute_map.values())}
    study = json.loads(study_schema())
    del study["$schema"]
    definitions = {**study.pop("$defs"), "Study": study}
    if twice := definitions.keys() & schema["$defs"].keys():
        raise ValueError(f"schema.yaml and the Study both define {', '.join(sorted(twice))}")
    schema["$defs"] |= {name: _chosen_first(definition) for name, definition in definitions.items()}
    return json.dumps(schema, indent=1) + "\n"


def _chosen_first(node: Any) -> Any:
    """Returns a schema with if/then in place of `oneOf` with a discriminator, so that an error is about the chosen branch alone."""
    if isinstance(node, list):
        return [_chosen_first(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _chosen_first(value) for key, value in node.items()}
    if "discriminator" not in node:
        return node
    name, branches = node["discriminator"]["propertyName"], node["discriminator"]["mapping"]
    rest = {key: value for key, value in node.items() if key not in ("discriminator", "oneOf")}
    return rest | {
        "type": "object",
        "required": [name],
        "properties": {name: {"enum": list(branches)}},
        "allOf": [
            {"if": {"required": [name], "properties": {name: {"const": value}}}, "then": {"$ref": branch}}
            for value, branch in branches.items()
        ],
    }


def values_table(text: str) -> str:
    """Returns a Markdown table of the values and their comments; a comment is above its value or behind it."""
    tree = yaml.compose(text)
    assert tree is not None
    rows = [f"| {path} | {default} | {words} |\n" for path, default, words in _rows(text.splitlines(), tree, "")]
    return "| value | default | |\n|---|---|---|\n" + "".join(rows)


def _rows(lines: list[str], node: yaml.Node, prefix: str) -> Iterator[tuple[str, str, str]]:
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        path, line = f"{prefix}{key.value}", key.start_mark.line
        words = _comment(lines, line).replace("|", r"\|")
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            if words:
                yield f"**`{path}`**", "", words
            yield from _rows(lines, value, f"{path}.")
        else:
            default = lines[line][value.start_mark.column : value.end_mark.column]
            yield f"`{path}`", f"`{default}`", words


def _comment(lines: list[str], line: int) -> str:
    """Returns the comment behind a value, or else the one above it."""
    if behind := re.search(r"(?<=\s)# (.*)", lines[line]):
        return behind[1]
    first = line
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return " ".join(above.strip().removeprefix("# ") for above in lines[first:line])


def main() -> None:
    """Writes the files that differ."""
    for path, text in generated().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
