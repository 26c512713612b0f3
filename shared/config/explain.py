"""Words pydantic's errors as lines for people, which name the path, what is allowed, the value, its place and similar names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from shared.config import dataset, prices, study
from shared.config.near import did_you_mean, near
from shared.errors import ConfigError
from shared.terminal import shortened

Path = tuple[str | int, ...]
KEY_LENGTH = 120


@contextmanager
def explain(places: Mapping[Path, str], prefix: Path = (), root: type[BaseModel] = study.Study) -> Iterator[None]:
    """Raises ConfigError, with one line per error, in place of pydantic's ValidationError for the model `root`.

    `places` says where each path was written, and `prefix` is the path of the validated value within the study.
    """
    try:
        yield
    except ValidationError as error:
        refused = _group_by_value(error.errors(include_url=False), root)
        lines = [_line(detail, alternatives, root, places, prefix) for detail, alternatives in refused]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


@contextmanager
def append_place(path: Path, places: Mapping[Path, str], experiment: int) -> Iterator[None]:
    """Appends to a ConfigError where the value at `path` was written: in the experiment itself, or else in the study."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{error}{_experiment_place(path, places, experiment)}") from None


def _experiment_place(path: Path, places: Mapping[Path, str], experiment: int) -> str:
    own: Path = ("experiments", experiment)
    for length in range(len(path), 0, -1):
        for candidate in ((*own, *path[:length]), path[:length]):
            if candidate in places:
                return f" in {places[candidate]}"
    return place_text(own, places)


def path_text(path: Path) -> str:
    """Returns a path as text: `("experiments", 1, "training", "lr")` → `experiments[1].training.lr`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{_one_line(part)}" for part in path)
    return text.removeprefix(".")


def _one_line(key: str) -> str:
    """Returns a key, shortened, in JSON's spelling if it has line breaks or control characters, since an error is one line."""
    return shortened(key if key.isprintable() else json.dumps(key), KEY_LENGTH)


def requirement(error: ValidationError) -> str:
    """Returns what is required of the first refused value, e.g. `must be > 0`."""
    details = error.errors(include_url=False)
    same_value = [detail for detail in details if detail["input"] == details[0]["input"]]
    return _requirement(same_value)


Refused = tuple[ErrorDetails, list[ErrorDetails]]
"""Holds the first error of a refused value, and all its errors that say what else would be allowed, one per member of a union."""


def _group_by_value(details: list[ErrorDetails], root: type[BaseModel]) -> list[Refused]:
    """Returns one entry for each refused value.

    If the value of a union has errors inside one of its members, only these are reported, since that member is what was written.
    A list is not reported as too short if it is so only because some of its entries were refused.
    """
    by_path: dict[Path, list[ErrorDetails]] = {}
    for detail in details:
        if detail["type"] != "too_short" or len(detail["input"]) < detail["ctx"]["min_length"]:
            by_path.setdefault(_location(detail, root).path, []).append(detail)
    ancestors = {path[:length] for path in by_path for length in range(len(path))}
    return [
        (same[0], _alternatives(same))
        for path, same in by_path.items()
        if path not in ancestors or not any(_location(detail, root).in_member for detail in same)
    ]


def _alternatives(details: list[ErrorDetails]) -> list[ErrorDetails]:
    return [detail for detail in details if detail["type"] == details[0]["type"] or detail["type"] in _TYPE_ERRORS]


def _line(
    detail: ErrorDetails,
    alternatives: Sequence[ErrorDetails],
    root: type[BaseModel],
    places: Mapping[Path, str],
    prefix: Path,
) -> str:
    location = _location(detail, root)
    path, kind, context = location.path, detail["type"], detail.get("ctx", {})
    place = place_text((*prefix, *path), places)
    name = path_text((*prefix, *path))
    if kind == "extra_forbidden":
        return f"{name}: {_unknown_key(str(path[-1]), location.model)}{place}"
    if kind == "missing" and not isinstance(detail["loc"][-1], int):
        return f"{name}: is required and missing{place}"
    if kind == "value_error":
        message = str(context["error"])
        own_path = message.split(":")[0]
        if name and own_path.split("[")[0].split(".")[0] not in study.Study.model_fields:
            return f"{name}: {message}{place}"
        return f"{message}{place or place_text(_path_of(own_path), places)}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        named = str(context.get("discriminator", "kind"))
        discriminator = "kind" if named.endswith("()") else named.strip("'")  # `Range` finds its kind by a function
        tags = _declared_tags(location.kind, discriminator)
        allowed = context.get("expected_tags") or ", ".join(map(repr, tags))
        given = detail["input"]
        place = place_text((*prefix, *path, discriminator), places) or place
        if isinstance(given, dict) and discriminator in given:
            value = given[discriminator]
            return f"{name}.{discriminator}: must be one of {allowed}, got {_shown(value)}{place}{did_you_mean(value, tags)}"
        return f"{name}.{discriminator}: must be one of {allowed}, which is missing{place}"
    null = " or null" if kind in _TYPE_ERRORS and type(None) in get_args(location.kind) else ""
    hint = did_you_mean(detail["input"], _literals(location.kind))
    if kind == "string_type" and isinstance(detail["input"], bool | int | float):
        hint = "; quote it if it is text"
        if isinstance(detail["input"], bool):
            hint += ", as yes, no, on and off are true or false in YAML"
    return f"{name}: {_requirement(alternatives)}{null}, got {_shown(detail['input'])}{place}{hint}"


def _unknown_key(key: str, model: type[BaseModel] | None) -> str:
    """Returns why a section cannot have a key."""
    assert model is not None  # pydantic refuses keys in models only
    if model is study.Experiment and key in study.Study.model_fields:
        return f"is one for the whole study, not for an experiment; set {key} at the top level"
    return f"unknown key{near(key, list(model.model_fields))}"


def _path_of(text: str) -> Path:
    """Reads a path from text: `experiments[1].training` → `("experiments", 1, "training")`."""
    return tuple(int(part) if part.isdecimal() else part for part in re.findall(r"[^.\[\]]+", text))


def _requirement(details: Sequence[ErrorDetails]) -> str:
    """Returns what is allowed, with ` or ` between the alternatives of a union."""
    first, *others = dict.fromkeys(_allowed(detail) for detail in details)
    return " or ".join([first, *(other.removeprefix("must be ").removeprefix("one of ") for other in others)])


def _allowed(detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    signs = {"greater_than": (">", "gt"), "greater_than_equal": (">=", "ge"), "less_than": ("<", "lt"), "less_than_equal": ("<=", "le")}  # fmt: skip
    if kind in signs:
        sign, bound = signs[kind]
        return f"must be {sign} {context[bound]:g}"
    if kind == "literal_error":
        return f"must be one of {context['expected']}"
    if kind == "multiple_of":
        return f"must be a multiple of {context['multiple_of']:g}"
    if kind in _TYPES:
        return f"must be {_TYPES[kind]}"
    if kind == "string_pattern_mismatch":
        return f"must be {_PATTERNS[context['pattern']]}"
    if kind in ("too_short", "too_long", "string_too_short", "missing"):
        bound, count = {
            "too_long": ("at most", context.get("max_length")),
            "missing": (
                "at least",
                int(detail["loc"][-1]) + 1 if kind == "missing" else 0,
            ),  # of a list of fixed length
        }.get(kind, ("at least", context.get("min_length")))
        what = ("character", "characters") if kind == "string_too_short" else ("entry", "entries")
        return f"must have {bound} {count} {what[count != 1]}"
    message = detail["msg"]
    return message[0].lower() + message[1:].replace("Input should", "must").replace("input should", "must")


_TYPES = {
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number", "string_type": "a string",
    "bool_type": "true or false", "dict_type": "a mapping", "model_type": "a mapping", "tuple_type": "a list", "model_attributes_type": "a mapping",
}  # fmt: skip
_TYPE_ERRORS = {*_TYPES, "literal_error"}
_PATTERNS = {
    study.NAME_PATTERN: "1 to 40 lower-case letters, digits and inner hyphens",
    dataset.GROUP_PATTERN: "1 to 60 letters, digits, underscores and hyphens, a letter or digit first",
    prices.CURRENCY_PATTERN: "three capital letters, e.g. EUR",
    prices.DEVICE_PATTERN: "the name of a device or a part of it, e.g. H100, without spaces around it",
}


def _shown(value: Any) -> str:
    kinds = {str: "a string", bool: "true or false", dict: "a mapping", list: "a list", type(None): "null"}
    text = json.dumps(value, default=str)
    text = text if len(text) <= 80 else f"{text[:77]}..."
    kind = kinds.get(type(value))
    return f"{text} ({kind})" if kind and value is not None else text


def place_text(path: Path, places: Mapping[Path, str]) -> str:
    """Returns ` in <place>` for the place of the path, or of the closest section around it that has one; else an empty text."""
    while path:
        if path in places:
            return f" in {places[path]}"
        path = path[:-1]
    return ""


@dataclass(frozen=True)
class _Location:
    """Describes where in a study an error is."""

    path: Path
    """Gives the path of the value, without pydantic's own steps, which name members of unions."""
    kind: Any
    """Holds the type that is declared there; None if there is none, as for an unknown key."""
    model: type[BaseModel] | None
    """Holds the model that declares the last step of `path`."""
    in_member: bool
    """Says whether pydantic's location ends in the name of a union's member."""


def _location(detail: ErrorDetails, root: type[BaseModel]) -> _Location:
    """Returns the location of the refused value: the list itself if an entry is missing in a list of fixed length."""
    location = detail["loc"]
    absent = detail["type"] == "missing" and isinstance(location[-1], int)
    return _locate(location[:-1] if absent else location, root)


def _locate(location: Sequence[str | int], root: type[BaseModel]) -> _Location:
    """Follows pydantic's location through the declared types from `root`, so that no list of sections is needed here."""
    path: list[str | int] = []
    kind: Any = root
    model, in_member = None, False
    for step in location:
        if step == "[key]":
            continue  # the key itself is wrong, and it is the step before
        kind, in_member = _plain(kind), False
        if len(members := _members(kind)) > 1:
            kind, in_member = next((member for names, member in members if step in names), None), True
            continue
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            model, field = kind, kind.model_fields.get(str(step))
            kind = None if field is None else field.annotation
        elif get_origin(kind) is tuple or get_origin(kind) is dict:
            arguments = [argument for argument in get_args(kind) if argument is not ...]
            kind = arguments[step if isinstance(step, int) and step < len(arguments) else -1]
        elif kind is None:
            continue
        path.append(step)
    return _Location(tuple(path), kind, model, in_member)


def _plain(kind: Any) -> Any:
    """Returns a type without its metadata, and without `None` if that leaves a single type."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        others = [member for member in get_args(kind) if member is not type(None)]
        return _plain(others[0]) if len(others) == 1 else kind
    return kind


def _members(kind: Any) -> list[tuple[set[str], Any]]:
    """Returns the members of a union, each with the names that pydantic's locations and discriminators have for it."""
    members = []
    for member in get_args(kind) if get_origin(kind) in (Union, UnionType) else ():
        tags = {data.tag for data in getattr(member, "__metadata__", ()) if isinstance(data, Tag)}
        plain = _plain(member)
        names = tags or {getattr(plain, "__name__", "")}
        if isinstance(plain, type) and issubclass(plain, BaseModel):
            literals = (field.annotation for field in plain.model_fields.values() if field.is_required())
            names |= {str(name) for kind in literals if get_origin(kind) is Literal for name in get_args(kind)}
        members.append((names, member))
    return members


def _declared_tags(kind: Any, discriminator: str) -> list[str]:
    """Returns the values that a union's discriminator can have."""
    models = (_plain(member) for _, member in _members(_plain(kind)))
    return [value for model in models for value in get_args(model.model_fields[discriminator].annotation)]


def _literals(kind: Any) -> list[str]:
    """Returns the words that a value of this type can be; none if the type has no fixed words."""
    plain = _plain(kind)
    if get_origin(plain) is Literal:
        return [word for word in get_args(plain) if isinstance(word, str)]
    return [word for _, member in _members(plain) for word in _literals(member)]
