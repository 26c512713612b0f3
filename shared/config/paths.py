"""Reads and replaces the values of a section by their path, e.g. `training.lr`, as `--set` and search spaces name them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from shared.config.base import Section
from shared.errors import ConfigError

S = TypeVar("S", bound=Section)


def value_at(section: Section, path: str) -> Any:
    """Returns the value at a path; raises ConfigError if there is none."""
    value: Any = section
    for part in path.split("."):
        if not isinstance(value, Section) or part not in type(value).model_fields:
            raise ConfigError(f"{path}: there is no such value; `{part}` is unknown")
        value = getattr(value, part)
    return value


def is_under(path: str, paths: Iterable[str]) -> bool:
    """Returns whether a path is one of `paths`, or lies below one of them."""
    return any(path == other or path.startswith(f"{other}.") for other in paths)


def parameters_of(kind: type[Section], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values whose path begins with a field of the section `kind`."""
    return {path: value for path, value in values.items() if path.split(".")[0] in kind.model_fields}


def with_parameters(section: S, values: Mapping[str, Any]) -> S:
    """Returns a validated copy of the section with values replaced by path.

    Raises ConfigError for an unknown path and pydantic's ValidationError for a value that is not allowed.
    """
    tree = section.model_dump(mode="json", by_alias=True)
    for path, value in values.items():
        value_at(section, path)  # raises for an unknown path
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        node[last] = value
    return type(section).model_validate_json(json.dumps(tree))
