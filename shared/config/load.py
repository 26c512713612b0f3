"""Reads a study file and `--set` values into a study. Every error names the path, the value, its place and a remedy."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from shared.config.explain import Path, explain, path_text, place_text
from shared.config.plain_yaml import MAX_DEPTH, NAME_LENGTH, Place, parse, parse_value, read_text
from shared.config.resolve import ResolvedStudy, resolve
from shared.config.search import Choice, FloatRange, IntRange
from shared.config.study import Study
from shared.errors import ConfigError
from shared.names import is_text
from shared.terminal import shortened

RANGE_FIELDS = {name for kind in (FloatRange, IntRange, Choice) for name in kind.model_fields}
LARGEST = 2**63 - 1  # what all that stores a whole number can hold
MESSAGE_LINES = 20
MESSAGE_LENGTH = 800  # characters of a line


@contextmanager
def _short_messages() -> Iterator[None]:
    """Shortens the lines of a ConfigError, and their number, as a study may have long values and many faults."""
    try:
        yield
    except ConfigError as error:
        lines = str(error).split("\n")
        more = [f"and {len(lines) - MESSAGE_LINES} more errors"] if len(lines) > MESSAGE_LINES else []
        short = [shortened(line, MESSAGE_LENGTH) for line in lines[:MESSAGE_LINES]]
        raise ConfigError("\n".join([*short, *more])) from error


@_short_messages()
def load_study(path: pathlib.Path, sets: Sequence[str] = ()) -> ResolvedStudy:
    """Returns the study of a YAML or JSON file with `path.to.key=value` replacements; raises ConfigError if it is not valid."""
    text = read_text(path, str(path), "name a study file, e.g. studies/demo.yaml")
    tree, places = parse(text, str(path))
    for setting in sets:
        apply_set(tree, places, setting)
    return _validated(tree, places)


@_short_messages()
def changed_study(study: ResolvedStudy, sets: Sequence[str]) -> ResolvedStudy:
    """Returns the study with `path.to.key=value` replacements; raises ConfigError if the result is not valid."""
    tree = study_tree(study)
    places: dict[Path, Place] = {}
    for setting in sets:
        apply_set(tree, places, setting)
    return _validated(tree, places)


def study_tree(study: ResolvedStudy) -> dict[str, Any]:
    """Returns the values that were written in the study, without defaults; `study_from_tree` reads them back."""
    tree: dict[str, Any] = study.written.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return tree


@_short_messages()
def study_from_tree(tree: dict[str, Any], places: dict[Path, Place] | None = None) -> ResolvedStudy:
    """Returns the study of a tree of plain values; raises ConfigError with one line per error if it is not valid."""
    return _validated(tree, places or {})


def _validated(tree: dict[str, Any], places: dict[Path, Place]) -> ResolvedStudy:
    for path, value in _parts(tree):
        if not _has_json(value):
            raise ConfigError(
                f"{path_text(path)}: must be a finite number, a string, true, false, null, a list or a mapping, got {value!r}"
                f"{place_text(path, places)}; quote dates and the like"
            )
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ConfigError(
                f"{path_text(path)}: must be a whole number below 2^63, got {value}{place_text(path, places)}"
            )
    with explain(places):
        study = Study.model_validate_json(json.dumps(tree))
    return resolve(study, places)


def _has_json(value: Any) -> bool:
    """Returns whether JSON can express a value, as YAML can express more."""
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, dict | list | str | int | None)


def _parts(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yields a value and everything in it, with their paths."""
    yield path, value
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _parts(inner, (*path, key))


def apply_set(tree: dict[str, Any], places: dict[Path, Place], setting: str) -> None:
    """Sets the value of `path.to.key=value` in the tree, where a list element is named by its index or by its `name:`.

    Raises ConfigError if the setting is malformed, or if its path leads through a plain value or a missing list element.
    """
    path, equals, text = setting.partition("=")
    parts = path.split(".")
    name = f"--set {shortened(setting, NAME_LENGTH)}"
    if not is_text(setting):
        raise ConfigError(f"{name}: is not UTF-8 text")
    if not equals or not all(parts):
        raise ConfigError(f"{name}: must be path.to.key=value, e.g. --set final.seeds=3")
    if len(parts) > MAX_DEPTH:
        raise ConfigError(f"{name}: nested more than {MAX_DEPTH} deep")
    value = parse_value(text, name)[0] if text else ""
    node: Any = tree
    steps: list[str | int] = []
    parts = _join_space_path(parts)
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        step = _list_index(node, part, name) if isinstance(node, list) else part
        steps.append(step)
        if last:
            node[step] = value
            for inner in [p for p in places if len(p) > len(steps) and p[: len(steps)] == tuple(steps)]:
                del places[inner]  # the file's values below this path are replaced
            for inner, _ in _parts(value, tuple(steps)):
                if len(inner) > MAX_DEPTH:
                    raise ConfigError(f"{name}: nested more than {MAX_DEPTH} deep")
                places[inner] = name
            return
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
            places[tuple(steps)] = name
        node = node[step]
        if not isinstance(node, dict | list):
            raise ConfigError(
                f"{name}: {'.'.join(parts[: position + 1])} is a plain value and has no {parts[position + 1]!r}"
            )


def _join_space_path(parts: list[str]) -> list[str]:
    """Joins the parts of a key of `search.space`, which is a path itself.

    `search.space.training.lr.low` has the parts `search`, `space`, `training.lr` and `low`.
    """
    if "space" not in parts[1:-1] or parts[parts.index("space") - 1] != "search":
        return parts
    at = parts.index("space") + 1
    end = next((i for i in range(at + 1, len(parts)) if parts[i] in RANGE_FIELDS), len(parts))
    return [*parts[:at], ".".join(parts[at:end]), *parts[end:]]


def _list_index(node: list[Any], part: str, name: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else None for item in node]
    if part in names:
        return names.index(part)
    if part.isdecimal() and len(part) < 10 and int(part) < len(node):
        return int(part)
    raise ConfigError(
        f"{name}: {part!r} is not an element of the list; there are {[n for n in names if n] or len(node)}"
    )
