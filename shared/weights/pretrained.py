"""Loads pretrained weights of a timm model: from the hub by way of the stage `weights`, or from a file, a package or a bucket."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from shared.artifacts.open import is_s3
from shared.artifacts.remote import local_file
from shared.errors import ConfigError, DataError
from shared.names import path_below
from shared.settings import Settings
from shared.weights.files import file_shapes, pickle_in_bucket
from shared.weights.headers import Shape, is_pickle, tensor_shapes
from shared.weights.pickles import read_pickle

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
"""Lists the names under which a training's checkpoint holds the weights, in the order in which timm prefers them."""


def create(
    name: str, pretrained: bool | str, fetched: Mapping[str, Path] = MappingProxyType({}), **options: Any
) -> nn.Module:
    """Returns a timm model by name without its classifier (its output is pooled features), with the weights that `pretrained` names.

    `fetched` are safetensors files from the hub, by model. Raises ConfigError for an unknown model (listing similar names) or weights that
    were not fetched, and DataError for a file that does not fit the model.
    """
    _check_model(name)
    if pretrained is True:
        return _from_hub_file(name, fetched, options)
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=0, **options)
    if isinstance(pretrained, str):
        state = read_state(pretrained)
        names = _match(name, model, {key: tuple(tensor.shape) for key, tensor in state.items()}, pretrained)
        model.load_state_dict({key: state[found] for key, found in names.items()})
    return model


def size_option(name: str, resolution: int) -> dict[str, int]:
    """Returns the input size as an option of timm: transformers need it when they are created, convolutional networks do not accept it."""
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return {"img_size": resolution} if config is not None and config.fixed_input_size else {}


def hub_repository(name: str) -> str:
    """Returns the hub repository with a timm model's weights; raises ConfigError for an unknown model or one that has none."""
    _check_model(name)
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # an unknown tag
        config = None
    if config is None or not config.hf_hub_id:
        raise ConfigError(
            f"classifier.pretrained: timm has no weights for {name} on the Hugging Face hub; name a model that has, or set it to "
            "false or a file"
        )
    return str(config.hf_hub_id)


def hub_licence(name: str) -> str | None:
    """Returns the licence of a timm model's weights, if timm knows it."""
    config = timm.get_pretrained_cfg(name)
    return str(config.license) if config is not None and config.license else None


def _check_model(name: str) -> None:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), 5, 0.5)
        raise ConfigError(f'classifier.model: timm has no model "{name}"; near ones: {", ".join(near) or "none"}')


def read_state(source: str) -> dict[str, Tensor]:
    """Returns the tensors of a file by path, `package:<module>/<file>` or `s3://bucket/key`, in the file's order.

    It reads safetensors, and from local disk also a pickled state dict, through torch's restricted reader. Raises DataError for other files.
    """
    path = _located(source)
    if _is_readable_pickle(path, source):
        return _read_pickle(path, source)
    tensor_shapes(path, f"classifier.pretrained: {source}")  # says what is wrong better than load_file
    try:
        state: dict[str, Tensor] = load_file(path)
        return state
    except SafetensorError as error:
        raise DataError(f"classifier.pretrained: {source} is no safetensors file ({error})") from error


def check_weights(name: str, pretrained: str, **options: Any) -> None:
    """Raises ConfigError or DataError as `create` would, without reading the weights: by the names and shapes of a file's tensors.

    A pickle's tensors stay in the file. Of an object in a bucket only the header is read.
    """
    _check_model(name)
    in_package = pretrained.startswith("package:")
    found = file_shapes(str(_located(pretrained)) if in_package else pretrained)
    if found is None:
        state = _read_pickle(_located(pretrained), pretrained, mapped=True)
        found = {key: tuple(tensor.shape) for key, tensor in state.items()}
    _match(name, _outline(name, num_classes=0, **options), found, pretrained)


def _outline(name: str, **options: Any) -> nn.Module:
    """Returns a model whose tensors have shapes and no values, which takes no memory; if the model cannot be made so, with values."""
    try:
        with torch.device("meta"):
            model: nn.Module = timm.create_model(name, pretrained=False, **options)
    except (RuntimeError, NotImplementedError):  # it computes with values as it is made
        model = timm.create_model(name, pretrained=False, **options)
    return model


def _located(source: str) -> Path:
    path = _package_file(source) if source.startswith("package:") else local_file(source, Settings.from_environment())
    if not path.is_file():
        raise DataError(f"classifier.pretrained: there is no file {source}; name one that the package has")
    return path


def _is_readable_pickle(path: Path, source: str) -> bool:
    """Returns whether the file is a pickle; raises DataError if it is one of a bucket."""
    found = is_pickle(path)
    if found and is_s3(source):
        raise pickle_in_bucket(source)
    return found


def _read_pickle(path: Path, source: str, mapped: bool = False) -> dict[str, Tensor]:
    remedy = "name a file of tensors alone, best as safetensors"
    return read_pickle(path, f"classifier.pretrained: {source}", remedy, mapped, WRAPPERS)


def _from_hub_file(name: str, fetched: Mapping[str, Path], options: Mapping[str, Any]) -> nn.Module:
    """Returns the model as timm loads weights that it fetches itself, with timm's own changes of names and shapes."""
    if name not in fetched:
        raise ConfigError(
            f"classifier.pretrained: the weights of {name} were not fetched from the Hugging Face hub; run the study again from "
            "`tailfill run`, whose stage `weights` does, or name a file, package:<module>/<file> or s3://"
        )
    try:
        state = load_file(fetched[name])
        model: nn.Module = timm.create_model(
            name, pretrained=True, num_classes=0, pretrained_cfg_overlay={"state_dict": state}, **options
        )
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise DataError(
            f"classifier.pretrained: the hub's weights of {name} cannot be loaded ({str(error).splitlines()[0]}); pin another "
            "classifier.revision"
        ) from error
    kept = cast(dict[str, Any], model.pretrained_cfg)
    kept.pop("state_dict", None)  # else every copy of the model would hold its weights a second time
    return model


def _match(name: str, model: nn.Module, found: Mapping[str, Shape], source: str) -> dict[str, str]:
    """Maps the names of the model's tensors to those of a file's; checks every shape.

    They are matched by name, or by name behind a prefix that wrappers such as DataParallel add (`module.`), or by order if the file has
    other names.
    """
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    prefix = _prefix(wanted, found)
    if prefix is not None:
        names = {key: prefix + key for key in wanted}
    else:
        whole = _outline(name).state_dict()  # with its ImageNet classifier, as such files are
        if len(found) != len(whole):
            missing = sorted(set(wanted) - set(found))
            raise DataError(
                f"classifier.pretrained: {source} does not fit {name}: it lacks {missing[0]} and {len(missing) - 1} more, and "
                f"its {len(found)} tensors are not timm's {len(whole)} in order; name the file of this model, or its model in classifier.model"
            )
        names = dict(zip(whole, found, strict=True))
        wanted = {key: wanted.get(key, tuple(tensor.shape)) for key, tensor in whole.items()}
    for key, shape in wanted.items():
        if found[names[key]] != shape:
            raise DataError(
                f"classifier.pretrained: {source} does not fit {name}: {key} has the shape {list(found[names[key]])}, "
                f"expected {list(shape)}"
            )
    return {key: names[key] for key in model.state_dict()}


def _prefix(wanted: Collection[str], found: Collection[str]) -> str | None:
    """Returns what a file's names have before the model's, most often nothing; None if it lacks some of the model's names."""
    first = next(iter(wanted))
    candidates = (key.removesuffix(first) for key in found if key == first or key.endswith(f".{first}"))
    return next((p for p in sorted(candidates, key=len) if all(p + key in found for key in wanted)), None)


def _package_file(source: str) -> Path:
    module, _, file = source.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"classifier.pretrained: the package {module} is not installed; pip install it, or name a file"
        )
    folder = Path(next(iter(spec.submodule_search_locations))).resolve()
    return path_below(folder, file, f"classifier.pretrained: package:{module}", ConfigError)
