"""Loads pretrained weights of a timm model: from the hub by way of the stage `weights`, or from a file, a package or a bucket."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from shared.artifacts.remote import local_file
from shared.errors import ConfigError, DataError
from shared.names import path_below
from shared.settings import Settings
from shared.weights.pickles import read_pickle

State = Mapping[str, Tensor]


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
        model.load_state_dict(_matched(name, model, read_state(pretrained), pretrained))
    return model


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


def _check_model(name: str) -> None:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), 5, 0.5)
        raise ConfigError(f'classifier.model: timm has no model "{name}"; near ones: {", ".join(near) or "none"}')


def read_state(source: str) -> dict[str, Tensor]:
    """Returns the tensors of a file by path, `package:<module>/<file>` or `s3://bucket/key`, in the file's order.

    It reads safetensors, and from local disk also a pickled state dict, through torch's restricted reader. Raises DataError for other files.
    """
    path = _package_file(source) if source.startswith("package:") else local_file(source, Settings.from_environment())
    if not path.is_file():
        raise DataError(f"classifier.pretrained: there is no file {source}; name one that the package has")
    if _is_pickle(path):
        if source.startswith("s3://"):
            raise DataError(
                f"classifier.pretrained: {source} is a pickle; from a bucket only safetensors are read, convert it"
            )
        return read_pickle(
            path, f"classifier.pretrained: {source}", "name a file of tensors alone, best as safetensors"
        )
    try:
        state: dict[str, Tensor] = load_file(path)
        return state
    except SafetensorError as error:
        raise DataError(f"classifier.pretrained: {source} is no safetensors file ({error})") from error


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


def _matched(name: str, model: nn.Module, found: State, source: str) -> dict[str, Tensor]:
    """Returns the model's state from a file's tensors, by name, or by order if the file has other names; checks every shape."""
    wanted = model.state_dict()
    if not set(wanted) <= set(found):
        whole = timm.create_model(
            name, pretrained=False
        ).state_dict()  # with its ImageNet classifier, as such files are
        if len(found) != len(whole):
            missing = sorted(set(wanted) - set(found))
            raise DataError(
                f"classifier.pretrained: {source} does not fit {name}: it lacks {missing[0]} and {len(missing) - 1} more, and "
                f"its {len(found)} tensors are not timm's {len(whole)} in order"
            )
        found = dict(zip(whole, found.values(), strict=True))
        wanted = {key: wanted.get(key, tensor) for key, tensor in whole.items()}
    for key, tensor in wanted.items():
        if found[key].shape != tensor.shape:
            raise DataError(
                f"classifier.pretrained: {source} does not fit {name}: {key} has the shape {list(found[key].shape)}, "
                f"expected {list(tensor.shape)}"
            )
    return {key: found[key] for key in model.state_dict()}


def _package_file(source: str) -> Path:
    module, _, file = source.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"classifier.pretrained: the package {module} is not installed; pip install it, or name a file"
        )
    folder = Path(next(iter(spec.submodule_search_locations))).resolve()
    return path_below(folder, file, f"classifier.pretrained: package:{module}", ConfigError)


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4)
    return start[:1] == b"\x80" or start == b"PK\x03\x04"  # a bare pickle, or the zip that torch.save writes around one
