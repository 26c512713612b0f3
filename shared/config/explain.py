"""Turns pydantic's errors into lines for people: path, what is allowed, the value, the place, and near keys."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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
        lines = [_line(detail, tree, places, prefix) for detail in _relevant(error.errors(include_url=False), tree)]
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


def _relevant(details: list[ErrorDetails], tree: Any) -> list[ErrorDetails]:
    """Of a union `mapping or "none"` only the errors of the side that was written."""

    def fits(detail: ErrorDetails) -> bool:
        if detail["loc"][:1] != ("verdict",) or len(detail["loc"]) < 2:
            return True
        return (detail["loc"][1] == "Verdict") == isinstance(tree.get("verdict"), dict)

    return [detail for detail in details if fits(detail)] or details


def _line(detail: ErrorDetails, tree: Any, places: Mapping[Path, str], prefix: Path) -> str:
    path = _tree_path(detail["loc"], tree)
    kind, context = detail["type"], detail.get("ctx", {})
    place = place_text((*prefix, *path), places)
    name = path_text((*prefix, *path))
    if kind == "extra_forbidden":
        return f"{name}: unknown key{near(str(path[-1]), _siblings(detail['loc'], tree))}{place}"
    if kind == "missing":
        return f"{name}: is required and missing{place}"
    if kind == "value_error":
        message = str(context["error"])
        own_path = message.split(":")[0]
        prefixed = (
            message
            if not name or own_path.split("[")[0].split(".")[0] in study.Study.model_fields
            else f"{name}: {message}"
        )
        return f"{prefixed}{place}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        discriminator = str(context.get("discriminator", "kind")).strip("'")
        allowed = context.get("expected_tags") or _tags(name)
        found = f", got {json.dumps(context['tag'])}" if "tag" in context else ", which is missing"
        return f"{name}.{discriminator}: must be one of {allowed}{found}{place_text((*prefix, *path, discriminator), places) or place}"
    return f"{name}: {_allowed(kind, context, detail['msg'])}, got {_shown(detail['input'])}{place}"


def _allowed(kind: str, context: Mapping[str, Any], message: str) -> str:
    signs = {"greater_than": ">", "greater_than_equal": ">=", "less_than": "<", "less_than_equal": "<="}
    if kind in signs:
        return f"must be {signs[kind]} {context[{'>': 'gt', '>=': 'ge', '<': 'lt', '<=': 'le'}[signs[kind]]]}"
    if kind == "literal_error":
        return f"must be one of {context['expected']}"
    if kind == "multiple_of":
        return f"must be a multiple of {context['multiple_of']}"
    types = {
        "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number", "string_type": "a string",
        "bool_type": "true or false", "dict_type": "a mapping", "model_type": "a mapping", "tuple_type": "a list", "model_attributes_type": "a mapping",
    }  # fmt: skip
    if kind in types:
        return f"must be {types[kind]}"
    if kind == "string_pattern_mismatch":
        return "must be 1 to 40 lower-case letters, digits and inner hyphens"
    return message[0].lower() + message[1:].replace("Input should", "must").replace("input should", "must")


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


def _siblings(location: tuple[str | int, ...], tree: Any) -> list[str]:
    """Keys that are allowed beside the unknown one."""
    model: type[BaseModel] | None = study.Study
    for step in location[:-1]:
        model = _MODELS.get(step, model) if isinstance(step, str) else model
    if "experiments" in location[:1] and len(location) == 3:
        model = study.Experiment
    return list(model.model_fields) if model is not None else []


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
_TAGS = {*_SOURCES, *_GENERATORS, *_RANGES, "Verdict", "literal['none']"}
_MODELS: dict[str, type[BaseModel]] = {
    **_SOURCES, **_GENERATORS, **_RANGES,
    "split": dataset.Split, "rare": dataset.Rare, "groups": dataset.CsvGroup,
    "generate": generation.Generate, "image_to_image": generation.ImageToImage, "score": generation.Score, "accept": generation.Accept,
    "classifier": training.Classifier, "training": training.Training, "synthetic": training.Synthetic,
    "search": search.Search, "budget": search.Budget, "final": search.Final, "verdict": search.Verdict, "resources": search.Resources,
    "experiments": study.Experiment,
}  # fmt: skip
