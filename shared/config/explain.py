"""Turns pydantic's errors into lines for people: path, what is allowed, the value, the place, and near keys."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shared.config import dataset, generation, search, study, training
from shared.errors import ConfigError

Path = tuple[str | int, ...]


@contextmanager
def explain(tree: Any, places: Mapping[Path, str], prefix: Path = ()) -> Iterator[None]:
    """Raises ConfigError, one line an error, in place of pydantic's ValidationError. `tree` is what was validated."""
    try:
        yield
    except ValidationError as error:
        details = _relevant(error.errors(include_url=False), tree)
        lines = [_line(detail, also, tree, places, prefix) for detail, also in details]
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


def near(word: str, known: list[str]) -> str:
    """`; did you mean …?`, or the list of what there is."""
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; there are {', '.join(sorted(known))}"


def reason(error: ValidationError) -> str:
    """What must hold of the first value that is refused: `must be > 0`."""
    details = error.errors(include_url=False)
    alike = [detail for detail in details if detail["input"] == details[0]["input"]]
    return _must(alike)


Refused = tuple[ErrorDetails, list[ErrorDetails]]
"""An error, and those that say of the same value what else it might have been: it and the others of a union's members."""


def _relevant(details: list[ErrorDetails], tree: Any) -> list[Refused]:
    """One error a refused value: of a union only the member that was written, or all where none was; no list is short for its refused entries."""
    found: dict[Path, list[ErrorDetails]] = {}
    for detail in details:
        if detail["type"] != "too_short" or len(detail["input"]) < detail["ctx"]["min_length"]:
            found.setdefault(_tree_path(detail["loc"], tree), []).append(detail)
    deeper = {path[:length] for path in found for length in range(len(path))}
    return [
        (same[0], _same_value(same))
        for path, same in found.items()
        if path not in deeper or not any(step in _MEMBERS for detail in same for step in detail["loc"][-1:])
    ]


def _same_value(details: list[ErrorDetails]) -> list[ErrorDetails]:
    return [detail for detail in details if detail["type"] == details[0]["type"] or detail["type"] in _EITHER]


def _line(
    detail: ErrorDetails, also: Sequence[ErrorDetails], tree: Any, places: Mapping[Path, str], prefix: Path
) -> str:
    path = _tree_path(detail["loc"], tree)
    kind, context = detail["type"], detail.get("ctx", {})
    place = place_text((*prefix, *path), places)
    name = path_text((*prefix, *path))
    if kind == "extra_forbidden":
        return f"{name}: unknown key{near(str(path[-1]), _siblings(detail['loc']))}{place}"
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
        allowed = context.get("expected_tags") or _tags(name)
        given = detail["input"]
        written = isinstance(given, dict) and discriminator in given
        found = f", got {_shown(given[discriminator])}" if written else ", which is missing"
        return f"{name}.{discriminator}: must be one of {allowed}{found}{place_text((*prefix, *path, discriminator), places) or place}"
    null = " or null" if kind in _EITHER and _may_be_null(detail["loc"]) else ""
    return f"{name}: {_must(also)}{null}, got {_shown(detail['input'])}{place}"


def _path_of(text: str) -> Path:
    """`experiments[1].training` → `("experiments", 1, "training")`."""
    return tuple(int(part) if part.isdecimal() else part for part in re.findall(r"[^.\[\]]+", text))


def _must(details: Sequence[ErrorDetails]) -> str:
    """What is allowed; of a union's members one or the other."""
    said = dict.fromkeys(_allowed(detail) for detail in details)
    first, *others = said
    return " or ".join([first, *(other.removeprefix("must be ").removeprefix("one of ") for other in others)])


def _may_be_null(location: tuple[str | int, ...]) -> bool:
    field = _model(location).model_fields.get(str(location[-1])) if location else None
    return field is not None and type(None) in get_args(field.annotation)


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


def _tree_path(location: tuple[str | int, ...], tree: Any) -> Path:
    """The location without pydantic's own steps (union tags), by following the tree."""
    path: list[str | int] = []
    node = tree
    for position, step in enumerate(location):
        last = position == len(location) - 1
        if (isinstance(node, dict) and step in node) or (
            isinstance(node, list) and isinstance(step, int) and step < len(node)
        ):
            node = node[step]  # type: ignore[index]
        elif not (last and isinstance(node, dict)) or step in _TAGS:
            continue  # a tag, or a step into a union's member
        path.append(step)
    return tuple(path)


def place_text(path: Path, places: Mapping[Path, str]) -> str:
    while path:
        if path in places:
            return f" in {places[path]}"
        path = path[:-1]
    return ""


def _siblings(location: tuple[str | int, ...]) -> list[str]:
    """Keys that are allowed beside the unknown one."""
    return list(_model(location).model_fields)


def _model(location: tuple[str | int, ...]) -> type[BaseModel]:
    """The section that holds the value there."""
    if "experiments" in location[:1] and len(location) == 3:
        return study.Experiment
    model: type[BaseModel] = study.Study
    for step in location[:-1]:
        model = _MODELS.get(step, model) if isinstance(step, str) else model
    return model


def _tags(name: str) -> str:
    return ", ".join(sorted(_SOURCES if name.endswith("dataset") else _GENERATORS))


_SOURCES: dict[str, type[BaseModel]] = {
    "garments": dataset.GarmentsSource,
    "deepfashion": dataset.DeepFashionSource,
    "folder": dataset.FolderSource,
    "csv": dataset.CsvSource,
    "fashion-mnist": dataset.FashionMnistSource,
}
_GENERATORS: dict[str, type[BaseModel]] = {
    "pixel": generation.PixelFinetune,
    "stable-diffusion": generation.StableDiffusionFinetune,
}
_RANGES: dict[str, type[BaseModel]] = {"float": search.FloatRange, "int": search.IntRange, "choice": search.Choice}
_MEMBERS = {"Verdict", "literal['none']", "bool", "int", "float", "str"}
_TAGS = {*_SOURCES, *_GENERATORS, *_RANGES, *_MEMBERS, "one", "several", "[key]"}
_MODELS: dict[str, type[BaseModel]] = {
    **_SOURCES, **_GENERATORS, **_RANGES,
    "split": dataset.Split, "rare": dataset.Rare, "groups": dataset.CsvGroup,
    "generate": generation.Generate, "image_to_image": generation.ImageToImage, "score": generation.Score, "accept": generation.Accept,
    "classifier": training.Classifier, "training": training.Training, "synthetic": training.Synthetic,
    "search": search.Search, "budget": search.Budget, "final": search.Final, "verdict": search.Verdict, "resources": search.Resources,
    "experiments": study.Experiment,
}  # fmt: skip
