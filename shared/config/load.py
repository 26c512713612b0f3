"""Reads a study file and `--set` values into a study. Every error names the path, the value, its place and a remedy."""

from __future__ import annotations

import json
import math
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from shared.config.explain import Path, explain, path_text, place_text
from shared.config.resolve import ResolvedStudy, resolve
from shared.config.search import Choice, FloatRange, IntRange
from shared.config.study import Study
from shared.errors import ConfigError

Place = str
"""Says where a value was written: `study.yaml line 12`, or `--set training.lr=1`."""

MAX_DEPTH = 40
RANGE_FIELDS = {name for kind in (FloatRange, IntRange, Choice) for name in kind.model_fields}


class _Loader(yaml.SafeLoader):
    """Loads YAML with the numbers of YAML 1.2: `1e-05` is one, while PyYAML's 1.1 reads a string."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)


def load_study(path: pathlib.Path, sets: Sequence[str] = ()) -> ResolvedStudy:
    """Returns the study of a YAML or JSON file with `path.to.key=value` replacements; raises ConfigError if it is not valid."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read ({reason}); name a study file, e.g. studies/demo.yaml") from error
    tree, places = parse(text, str(path))
    for setting in sets:
        apply_set(tree, places, setting)
    return study_from_tree(tree, places)


def changed_study(study: ResolvedStudy, sets: Sequence[str]) -> ResolvedStudy:
    """Returns the study with `path.to.key=value` replacements; raises ConfigError if the result is not valid."""
    tree = study_tree(study)
    places: dict[Path, Place] = {}
    for setting in sets:
        apply_set(tree, places, setting)
    return study_from_tree(tree, places)


def study_tree(study: ResolvedStudy) -> dict[str, Any]:
    """Returns the values that were written in the study, without defaults; `study_from_tree` reads them back."""
    tree: dict[str, Any] = study.written.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return tree


def study_from_tree(tree: dict[str, Any], places: dict[Path, Place] | None = None) -> ResolvedStudy:
    """Returns the study of a tree of plain values; raises ConfigError with one line per error if it is not valid."""
    for path, value in _values_without_json(tree):
        raise ConfigError(
            f"{path_text(path)}: must be a finite number, a string, true, false, null, a list or a mapping, got {value!r}"
            f"{place_text(path, places or {})}; quote dates and the like"
        )
    with explain(places or {}):
        study = Study.model_validate_json(json.dumps(tree))
    return resolve(study, places or {})


def _values_without_json(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yields the values, with their paths, that YAML can express and JSON cannot."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _values_without_json(inner, (*path, key))
    elif not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        yield path, value


def parse(text: str, name: str) -> tuple[dict[str, Any], dict[Path, Place]]:
    """Returns a YAML text as plain values, and the place of each path; raises ConfigError if it is not YAML or no mapping.

    `name` is what errors and places call the text.
    """
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            places: dict[Path, Place] = {}
            if root is not None:
                _note_places(root, (), name, places)
            tree = loader.construct_document(root) if root is not None else None
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{name}{line}: not valid YAML ({problem})") from error
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{name}: must be a mapping with name, dataset, finetune and experiments, got {type(tree).__name__}"
        )
    return tree, places


def _note_places(node: yaml.Node, path: Path, name: str, places: dict[Path, Place]) -> None:
    if len(path) > MAX_DEPTH:
        raise ConfigError(f"{name} line {node.start_mark.line + 1}: nested more than {MAX_DEPTH} deep")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            line = key.start_mark.line + 1
            if inner in places:
                raise ConfigError(
                    f"{name} line {line}: the key {key.value!r} is used twice (first in {places[inner]}); keep one"
                )
            places[inner] = f"{name} line {line}"
            _note_places(value, inner, name, places)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            places[(*path, index)] = f"{name} line {value.start_mark.line + 1}"
            _note_places(value, (*path, index), name, places)


def apply_set(tree: dict[str, Any], places: dict[Path, Place], setting: str) -> None:
    """Sets the value of `path.to.key=value` in the tree, where a list element is named by its index or by its `name:`.

    Raises ConfigError if the setting is malformed, or if its path leads through a plain value or a missing list element.
    """
    path, equals, text = setting.partition("=")
    parts = path.split(".")
    if not equals or not all(parts):
        raise ConfigError(f'--set {setting}: must be path.to.key=value, e.g. --set final.seeds=3, got "{setting}"')
    try:
        value = yaml.load(text, _Loader) if text else ""
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--set {setting}: the value is not valid YAML ({getattr(error, 'problem', error)})"
        ) from error
    node: Any = tree
    steps: list[str | int] = []
    parts = _join_space_path(parts)
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        step = _list_index(node, part, setting) if isinstance(node, list) else part
        steps.append(step)
        if last:
            node[step] = value
            for inner in [p for p in places if len(p) > len(steps) and p[: len(steps)] == tuple(steps)]:
                del places[inner]  # the file's values below this path are replaced
            places |= dict.fromkeys(_paths(value, tuple(steps)), f"--set {setting}")
            return
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
            places[tuple(steps)] = f"--set {setting}"
        node = node[step]
        if not isinstance(node, dict | list):
            raise ConfigError(
                f"--set {setting}: {'.'.join(parts[: position + 1])} is a plain value and has no {parts[position + 1]!r}"
            )


def _paths(value: Any, path: Path) -> Iterator[Path]:
    """Yields the path of a value and of everything in it; raises ConfigError if a YAML alias makes it endless."""
    if len(path) > MAX_DEPTH:
        raise ConfigError(f"--set {path_text(path[:3])}…: nested more than {MAX_DEPTH} deep")
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _paths(inner, (*path, key))


def _join_space_path(parts: list[str]) -> list[str]:
    """Joins the parts of a key of `search.space`, which is a path itself.

    `search.space.training.lr.low` has the parts `search`, `space`, `training.lr` and `low`.
    """
    if "space" not in parts[1:-1] or parts[parts.index("space") - 1] != "search":
        return parts
    at = parts.index("space") + 1
    end = next((i for i in range(at + 1, len(parts)) if parts[i] in RANGE_FIELDS), len(parts))
    return [*parts[:at], ".".join(parts[at:end]), *parts[end:]]


def _list_index(node: list[Any], part: str, setting: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else None for item in node]
    if part in names:
        return names.index(part)
    if part.isdecimal() and int(part) < len(node):
        return int(part)
    raise ConfigError(
        f"--set {setting}: {part!r} is not an element of the list; there are {[n for n in names if n] or len(node)}"
    )
