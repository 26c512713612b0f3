"""Turns pydantic's errors into lines for people: path, what is allowed, the value, the place, and near keys."""

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

from shared.config import dataset, study
from shared.config.near import near
from shared.errors import ConfigError

Path = tuple[str | int, ...]


@contextmanager
def explain(places: Mapping[Path, str], prefix: Path = (), root: type[BaseModel] = study.Study) -> Iterator[None]:
    """Raises ConfigError, with a line for each error, in place of pydantic's ValidationError of the model `root`."""
    try:
        yield
    except ValidationError as error:
        details = _relevant(error.errors(include_url=False), root)
        lines = [_line(detail, also, root, places, prefix) for detail, also in details]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


@contextmanager
def placed(path: Path, places: Mapping[Path, str], experiment: int) -> Iterator[None]:
    """Ends a ConfigError's line with the place of the value at `path`: the experiment's own, or else the study's."""
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
    """`("experiments", 1, "training", "lr")` → `experiments[1].training.lr`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{_one_line(part)}" for part in path)
    return text.removeprefix(".")


def _one_line(key: str) -> str:
    """A key with line breaks or control characters in JSON's spelling: an error is one line."""
    return key if key.isprintable() else json.dumps(key)


def reason(error: ValidationError) -> str:
    """What must hold of the first value that is refused: `must be > 0`."""
    details = error.errors(include_url=False)
    alike = [detail for detail in details if detail["input"] == details[0]["input"]]
    return _must(alike)


Refused = tuple[ErrorDetails, list[ErrorDetails]]
"""An error, and those that say of the same value what else it might have been: it and the others of a union's members."""


def _relevant(details: list[ErrorDetails], root: type[BaseModel]) -> list[Refused]:
    """One error for each refused value.

    Of a union's errors, those of the member that was written stay, or all if none was. A list is not called short for its refused entries.
    """
    found: dict[Path, list[ErrorDetails]] = {}
    for detail in details:
        if detail["type"] != "too_short" or len(detail["input"]) < detail["ctx"]["min_length"]:
            found.setdefault(_located(detail, root).path, []).append(detail)
    deeper = {path[:length] for path in found for length in range(len(path))}
    return [
        (same[0], _same_value(same))
        for path, same in found.items()
        if path not in deeper or not any(_located(detail, root).in_member for detail in same)
    ]


def _same_value(details: list[ErrorDetails]) -> list[ErrorDetails]:
    return [detail for detail in details if detail["type"] == details[0]["type"] or detail["type"] in _EITHER]


def _line(
    detail: ErrorDetails, also: Sequence[ErrorDetails], root: type[BaseModel], places: Mapping[Path, str], prefix: Path
) -> str:
    found = _located(detail, root)
    path, kind, context = found.path, detail["type"], detail.get("ctx", {})
    place = place_text((*prefix, *path), places)
    name = path_text((*prefix, *path))
    if kind == "extra_forbidden":
        return f"{name}: {_unknown(str(path[-1]), found.holder)}{place}"
    if kind == "missing" and not isinstance(detail["loc"][-1], int):
        return f"{name}: is required and missing{place}"
    if kind == "value_error":
        message = str(context["error"])
        own_path = message.split(":")[0]
        if name and own_path.split("[")[0].split(".")[0] not in study.Study.model_fields:
            return f"{name}: {message}{place}"
        return f"{message}{place or place_text(_path_of(own_path), places)}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        discriminator = str(context.get("discriminator", "kind")).strip("'_()")
        allowed = context.get("expected_tags") or _declared_tags(found.kind, discriminator)
        given = detail["input"]
        written = isinstance(given, dict) and discriminator in given
        got = f", got {_shown(given[discriminator])}" if written else ", which is missing"
        return f"{name}.{discriminator}: must be one of {allowed}{got}{place_text((*prefix, *path, discriminator), places) or place}"
    null = " or null" if kind in _EITHER and type(None) in get_args(found.kind) else ""
    return f"{name}: {_must(also)}{null}, got {_shown(detail['input'])}{place}"


def _unknown(key: str, holder: type[BaseModel] | None) -> str:
    """Why a key cannot stand in a section."""
    assert holder is not None  # pydantic refuses keys in models only
    if holder is study.Experiment and key in study.Study.model_fields:
        return f"is one for the whole study, not for an experiment; set {key} at the top level"
    return f"unknown key{near(key, list(holder.model_fields))}"


def _path_of(text: str) -> Path:
    """`experiments[1].training` → `("experiments", 1, "training")`."""
    return tuple(int(part) if part.isdecimal() else part for part in re.findall(r"[^.\[\]]+", text))


def _must(details: Sequence[ErrorDetails]) -> str:
    """What is allowed; of a union's members one or the other."""
    said = dict.fromkeys(_allowed(detail) for detail in details)
    first, *others = said
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
_EITHER = {*_TYPES, "literal_error"}
_PATTERNS = {
    study.NAME_PATTERN: "1 to 40 lower-case letters, digits and inner hyphens",
    dataset.GROUP_PATTERN: "1 to 60 letters, digits, underscores and hyphens, a letter or digit first",
}


def _shown(value: Any) -> str:
    kinds = {str: "a string", bool: "true or false", dict: "a mapping", list: "a list", type(None): "null"}
    text = json.dumps(value, default=str)
    text = text if len(text) <= 80 else f"{text[:77]}..."
    kind = kinds.get(type(value))
    return f"{text} ({kind})" if kind and value is not None else text


def place_text(path: Path, places: Mapping[Path, str]) -> str:
    while path:
        if path in places:
            return f" in {places[path]}"
        path = path[:-1]
    return ""


@dataclass(frozen=True)
class _Place:
    """Where in a study pydantic found an error."""

    path: Path
    """The location without pydantic's own steps, which name members of unions."""
    kind: Any
    """The type that is declared there; None if there is none, as for an unknown key."""
    holder: type[BaseModel] | None
    """The model that declares the last step of `path`."""
    in_member: bool
    """Whether the location ends in the name of a union's member."""


def _located(detail: ErrorDetails, root: type[BaseModel]) -> _Place:
    """Where the refused value is: the list itself if an entry is missing in a list of fixed length."""
    location = detail["loc"]
    absent = detail["type"] == "missing" and isinstance(location[-1], int)
    return _locate(location[:-1] if absent else location, root)


def _locate(location: Sequence[str | int], root: type[BaseModel]) -> _Place:
    """Follows a location from the root's declared types, so that no list of sections has to be kept here."""
    path: list[str | int] = []
    kind: Any = root
    holder, in_member = None, False
    for step in location:
        if step == "[key]":
            continue  # the error is of the key itself, which stands before it
        kind, in_member = _plain(kind), False
        if len(members := _members(kind)) > 1:
            kind, in_member = next((member for names, member in members if step in names), None), True
            continue
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            holder, field = kind, kind.model_fields.get(str(step))
            kind = None if field is None else field.annotation
        elif get_origin(kind) is tuple or get_origin(kind) is dict:
            arguments = [argument for argument in get_args(kind) if argument is not ...]
            kind = arguments[step if isinstance(step, int) and step < len(arguments) else -1]
        elif kind is None:
            continue
        path.append(step)
    return _Place(tuple(path), kind, holder, in_member)


def _plain(kind: Any) -> Any:
    """A type without its metadata, and without `None` if that leaves one type only."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        others = [member for member in get_args(kind) if member is not type(None)]
        return _plain(others[0]) if len(others) == 1 else kind
    return kind


def _members(kind: Any) -> list[tuple[set[str], Any]]:
    """The members of a union, each with the names by which pydantic's locations and discriminators call it."""
    found = []
    for member in get_args(kind) if get_origin(kind) in (Union, UnionType) else ():
        tags = {data.tag for data in getattr(member, "__metadata__", ()) if isinstance(data, Tag)}
        plain = _plain(member)
        names = tags or {getattr(plain, "__name__", "")}
        if isinstance(plain, type) and issubclass(plain, BaseModel):
            literals = (field.annotation for field in plain.model_fields.values() if field.is_required())
            names |= {str(name) for kind in literals if get_origin(kind) is Literal for name in get_args(kind)}
        found.append((names, member))
    return found


def _declared_tags(kind: Any, discriminator: str) -> str:
    """The values that a union's discriminator can have."""
    models = (_plain(member) for _, member in _members(_plain(kind)))
    allowed = [value for model in models for value in get_args(model.model_fields[discriminator].annotation)]
    return ", ".join(repr(value) for value in allowed)
