"""Finds a base model (in a folder, an S3 prefix, or files that the stage `weights` committed) and loads its parts, one by one.

Only safetensors are read. A safety checker is not loaded, as it replaces images by black ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers.utils import logging as transformers_logging

from shared.diffusion.generator import BaseSource
from shared.diffusion.text_to_image.base_files import (
    INDEX,
    STABLE_DIFFUSION,
    VARIANTS,
    Layout,
    has_weights,
    weights_files,
    weights_name,
)
from shared.digests import file_digest
from shared.errors import DataError
from shared.weights.in_place import in_place, remedy_in_folder

T = TypeVar("T")
RANDOM = 0.02
"""Bounds the random weights of untrained networks, about as large as those of trained ones."""


@dataclass(frozen=True)
class Base:
    """Identifies a base model that is on local disk."""

    name: str
    """Names it as the study does: a folder, an S3 prefix or a hub name."""
    revision: str | None
    """Gives the commit of a base from the hub; None for any other."""
    folder: Path
    layout: Layout = STABLE_DIFFUSION
    """Says which of its files are read."""
    replaced: tuple[str, ...] = ()
    """Lists the parts that a fine-tuning replaced, whose weights need not be there."""
    untrained: bool = False
    """Says that networks get random weights, and those of the base need not be there."""

    def digests(self, parts: Sequence[str]) -> dict[str, str]:
        """Returns the SHA-256 of each file that these parts are read from, by its path inside the base."""
        return {path: file_digest(self.folder / path) for path in self.files(parts)}

    def files(self, parts: Sequence[str]) -> list[str]:
        """Returns the paths of the files that these parts are read from; raises DataError if one is missing or pickled."""
        paths = [INDEX] if self.layout.index else []
        for part in parts:
            there = [name for name in self.layout.small_names(part) if (self.folder / part / name).is_file()]
            if missing := self.layout.missing_names(part, there):
                raise DataError(f"finetune.base {self.name}: has no {part}/{missing[0]}; name {self.layout.about}")
            paths += [f"{part}/{name}" for name in there]
            if has_weights(part) and part not in self.replaced and not self.untrained:
                paths += self.weights(part)
        return paths

    def weights(self, part: str) -> list[str]:
        """Returns the paths of a part's weights; raises DataError if there are none but pickles, or a shard is missing."""
        there = [f"{part}/{path.name}" for path in (self.folder / part).glob("*") if path.is_file()]
        found = weights_files(part, there)
        if not found:
            self._refuse_weights(part)
        if found[0].endswith(".json"):
            shards = self._json(found[0]).get("weight_map")
            named = {f"{part}/{name}" for name in shards.values()} if isinstance(shards, dict) else set()
            if missing := sorted(named - {*found}) or ([] if named else ["a weight_map"]):
                raise DataError(f"finetune.base {self.name}: {found[0]} names {missing[0]}, which is not there")
        return found

    def check(self, recorded: Mapping[str, str], parts: Sequence[str]) -> None:
        """Raises DataError if the digests of these parts differ from those that were recorded at the fine-tuning."""
        for path, digest in self.digests(parts).items():
            if recorded.get(path) != digest:
                raise DataError(
                    f"base model {self.name}: {path} has digest {digest}, but the fine-tuning read {recorded.get(path)}; "
                    "restore it, or run finetune again"
                )

    def config(self, part: str) -> dict[str, Any]:
        """Returns the part's configuration; raises DataError if it is not a JSON object."""
        return self._json(f"{part}/{self.layout.small_names(part)[0]}")

    def value(self, part: str, name: str, kind: type[T]) -> T:
        """Returns a value of the part's configuration; raises DataError unless it is there and of the type `kind`."""
        found = self.config(part).get(name)
        if not isinstance(found, kind):
            path = f"{part}/{self.layout.small_names(part)[0]}"
            raise DataError(f"finetune.base {self.name}: {path} has no {name} of the type {kind.__name__}")
        return found

    @cached_property
    def index(self) -> dict[str, Any]:
        """Returns the content of model_index.json; raises DataError if it is not a JSON object."""
        return self._json(INDEX)

    def _json(self, path: str) -> dict[str, Any]:
        try:
            values = json.loads((self.folder / path).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"finetune.base {self.name}: {path} cannot be read ({error})") from error
        if not isinstance(values, dict):
            raise DataError(f"finetune.base {self.name}: {path} must hold a JSON object")
        return values

    def _refuse_weights(self, part: str) -> None:
        name = weights_name(part)
        there = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]
        raise DataError(
            f"finetune.base {self.name}: has no {name}{in_place(name, there)}; {remedy_in_folder(name, there)}"
        )


def find_base(name: str, source: BaseSource, layout: Layout = STABLE_DIFFUSION, replaced: tuple[str, ...] = ()) -> Base:
    """Returns the base model `name`, after copying it to local disk if necessary.

    `replaced` names the parts whose weights are not needed. Raises DataError if there is no such model, UnavailableError (exit 75) if its
    bucket does not answer.
    """
    name = source.location or name
    if source.fetched is not None:
        names = layout.choose(source.fetched.names, without=replaced)
        return Base(name, source.fetched.commit, source.fetched.folder(names), layout, replaced)
    if name.startswith("s3://"):
        from shared.artifacts.remote import local_folder

        return Base(name, None, local_folder(name, source.settings, source.scratch), layout, replaced)
    if Path(name).is_dir():
        return Base(name, None, Path(name), layout, replaced)
    raise DataError(f"finetune.base: there is no folder {name}; name a folder, an s3://bucket/prefix or a hub name")


def load_part(base: Base, part: str, kind: str, dtype: torch.dtype = torch.float32, weights: bool = True) -> Any:
    """Returns a part of the base, of the class `kind` of diffusers or transformers: a network in evaluation mode on the CPU, or a tokenizer.

    Without `weights` a network stays on the meta device, for the caller to fill. Raises DataError if a file is missing, or weights do not
    fit their configuration.
    """
    _quiet()
    if part.startswith("tokenizer"):
        return _tokenizer(base, part, getattr(transformers, kind))
    library = transformers if part.startswith("text_encoder") else diffusers
    return _network(base, part, getattr(library, kind), dtype, weights)


def _network(base: Base, part: str, kind: Any, dtype: torch.dtype, weights: bool) -> Any:
    config = base.config(part)
    files = base.weights(part) if weights and not base.untrained else []
    try:
        if not files:
            with init_empty_weights():
                model = (
                    kind(kind.config_class.from_dict(config))
                    if part.startswith("text_encoder")
                    else kind.from_config(config)
                ).eval()
            return _fill_randomly(model, dtype) if weights else model
        model, info = kind.from_pretrained(
            base.folder / part,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            dtype=dtype,
            variant=_variant(files[0]),
        )
    except Exception as error:  # these libraries raise all kinds for a damaged file or a wrong shape
        raise DataError(f"finetune.base {base.name}: {part}/ cannot be loaded ({_first_line(error)})") from error
    if info["missing_keys"] or info["mismatched_keys"]:
        name = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))[0]
        raise DataError(
            f"finetune.base {base.name}: {files[0]} lacks {name}, or has it in another shape; it does not fit its config.json"
        )
    return model.eval()


def _fill_randomly(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Returns the network, which was on the meta device, with small random weights of this type: networks of zeros could be faster."""
    filled: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in [*module.named_parameters(recurse=False)]:
            if parameter not in filled:  # layers may share weights
                values = torch.empty(parameter.shape, dtype=dtype).uniform_(-RANDOM, RANDOM)
                filled[parameter] = nn.Parameter(values)
            setattr(module, name, filled[parameter])
    return model


def _variant(path: str) -> str | None:
    """Returns the variant of a file of weights: fp16 of `unet/diffusion_pytorch_model.fp16.safetensors`."""
    return next((kind for kind in VARIANTS if re.search(rf"\.{kind}\.(?:safetensors|json)$", path)), None)


def _tokenizer(base: Base, part: str, kind: Any) -> Any:
    base.files([part])
    try:
        return kind.from_pretrained(base.folder / part, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise DataError(f"finetune.base {base.name}: {part}/ cannot be loaded ({_first_line(error)})") from error


def _quiet() -> None:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
