"""Values of a section by their path, as `--set` and the search space name them: `training.lr`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from shared.config.base import Section
from shared.errors import ConfigError

S = TypeVar("S", bound=Section)


def value_at(section: Section, path: str) -> Any:
    """The value at a path; raises ConfigError where there is none."""
    value: Any = section
    for part in path.split("."):
        if not isinstance(value, Section) or part not in type(value).model_fields:
            raise ConfigError(f"{path}: there is no such value; `{part}` is unknown")
        value = getattr(value, part)
    return value


def is_under(path: str, paths: Iterable[str]) -> bool:
    """Whether a path is one of these, or lies in one."""
    return any(path == other or path.startswith(f"{other}.") for other in paths)


def parameters_of(kind: type[Section], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values whose path begins with a field of that section."""
    return {path: value for path, value in values.items() if path.split(".")[0] in kind.model_fields}


def with_parameters(section: S, values: Mapping[str, Any]) -> S:
    """The section with values replaced by path, checked anew; raises ConfigError for an unknown path, ValidationError for a bad value."""
    tree = section.model_dump(mode="json", by_alias=True)
    for path, value in values.items():
        value_at(section, path)
        *folders, last = path.split(".")
        node = tree
        for folder in folders:
            node = node[folder]
        node[last] = value
    return type(section).model_validate_json(json.dumps(tree))
