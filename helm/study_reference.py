"""Writes the reference of a study file as Markdown: one table per section, from the study's JSON schema and so from its docstrings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from shared.config.study import Experiment, Overridable

Node = dict[str, Any]
"""A part of the JSON schema."""

HEAD = "| key | type | default | meaning |\n|---|---|---|---|\n"
_SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "multipleOf": "a multiple of"}  # fmt: skip
_NAMES = {
    "integer": "whole number",
    "number": "number",
    "string": "string",
    "boolean": "`true` or `false`",
    "null": "null",
}


def study_reference(schema: Node) -> str:
    """Returns the tables of all sections of the study's JSON schema; the top level comes first."""
    for node in schema["properties"].values():
        for name in _models(node) if isinstance(node.get("default"), dict) else ():
            for key, value in node["default"].items():  # JSON schema leaves out defaults that a factory makes
                schema["$defs"][name]["properties"][key].setdefault("default", value)
    sections = "".join(_section(schema["$defs"], name, node) for name, node in schema["properties"].items())
    return f"## Top level\n\n{_table(schema, '')}{sections}"


def _section(definitions: Node, path: str, node: Node) -> str:
    """Returns the heading and the tables of the sections that can stand at a path; nothing if it takes plain values only."""
    models = [definitions[name] for name in _models(node)]
    if not models:
        return ""
    heading = f"\n{'##' if '.' not in path else '###'} {path}\n"
    if len(models) == 1:
        return heading + _model(definitions, path, models[0], {})
    common = {key: kind for key, kind in _common(models).items() if key not in ("kind", "source", "generator")}
    shared = f"\nEvery `{path}` has these keys:\n\n{_table({'properties': common}, path)}" if common else ""
    titles = [_tag(path, model) for model in models]
    each = (f"\n#### {t}\n{_model(definitions, path, m, common)}" for t, m in zip(titles, models, strict=True))
    return (
        heading + shared + "".join(each) + "".join(_section(definitions, f"{path}.{k}", n) for k, n in common.items())
    )


def _model(definitions: Node, path: str, model: Node, common: Node) -> str:
    """Returns the description and the table of one section, and the sections within it, without the rows that are common."""
    overrides = Overridable.model_fields if model["title"] == Experiment.__name__ else {}
    own = {
        key: {"description": common.get(key, {}).get("description", "")} | node
        for key, node in model["properties"].items()
        if common.get(key) != node and key not in overrides
    }
    table = _table({"properties": own, "required": model.get("required", [])}, path)
    inner = "".join(_section(definitions, f"{path}.{key}", kind) for key, kind in own.items())
    merged = ", ".join(
        f"[`{name}`](#top-level)" if name in ("augmentation", "images") else f"[`{name}`](#{name})"
        for name in overrides
    )
    also = f"\nIt may also set, for itself, any of {merged}.\n" if overrides else ""
    return f"\n{_text(model.get('description', ''))}\n\n{table}{also}{inner}"


def _common(models: list[Node]) -> Node:
    """Returns the properties that all models have, each as most models have it."""
    found: Node = {}
    for key in models[0]["properties"]:
        nodes = [json.dumps(model["properties"][key]) for model in models if key in model["properties"]]
        if len(nodes) == len(models) and len(set(nodes)) < len(nodes):
            found[key] = json.loads(max(nodes, key=nodes.count))
    return found


def _tag(path: str, model: Node) -> str:
    """Returns the heading of a union's member: the key that tells it from the others."""
    for key, node in model["properties"].items():
        if "const" in node:
            return f"{path} with {key}: {node['const']}"
    raise ValueError(f"{path}: {model['title']} has no key that tells it from the others")


def _table(model: Node, path: str) -> str:
    rows = HEAD
    for key, node in model["properties"].items():
        default = "required" if key in model.get("required", []) else _default(node)
        kind = _type(node, f"{path}.{key}" if path else key)
        rows += f"| `{key}` | {kind} | {default} | {_text(node.get('description', ''))} |\n"
    return rows


def _type(node: Node, path: str) -> str:
    if _models(node):
        link = f"[mapping](#{re.sub('[^a-z0-9_-]', '', path)})"
        plain = [f"`{each['const']}`" for each in node.get("anyOf", []) if "const" in each]
        several = {"array": f"list; each entry a {link}", "object": f"mapping; each value a {link}"}.get(
            node.get("type", ""), link
        )
        null = ["null"] if {"type": "null"} in node.get("anyOf", []) else []
        return " or ".join([several, *plain, *null])
    if members := node.get("anyOf") or node.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(member, path) for member in members))
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return ", ".join(f"`{json.dumps(value)[1:-1]}`" for value in node["enum"])
    if node["type"] == "array":
        entries = node.get("prefixItems")
        return (
            f"list of {len(entries)} ({_type(entries[0], path)})" if entries else f"list ({_type(node['items'], path)})"
        )
    if node["type"] == "object":
        values = node.get("additionalProperties")
        return f"mapping (each value: {_type(values, path)})" if isinstance(values, dict) else "mapping"
    bounds = [f"{sign} {node[name]:g}" for name, sign in _SIGNS.items() if name in node]
    return ", ".join([_NAMES[node["type"]], *bounds])


def _default(node: Node) -> str:
    if _models(node) and node.get("default"):
        return "as below" if "$ref" in node or "anyOf" in node else "see the meaning"
    return f"`{json.dumps(node.get('default', {}), ensure_ascii=False)}`"


def _models(node: Node) -> list[str]:
    """Returns the names of the sections that can stand somewhere, also as entries of a list or as values of a mapping."""
    return list(dict.fromkeys(re.sub(".*/", "", reference) for reference in _references(node)))


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            elif key not in ("discriminator", "default"):
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _text(description: str) -> str:
    """Returns a description as one line of a table."""
    return re.sub(r"\s*\n\s*", " ", description).replace("|", r"\|")
