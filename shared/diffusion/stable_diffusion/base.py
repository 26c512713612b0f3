"""Loads the base model, any Stable Diffusion 1.x or 2.x: from a folder, an S3 prefix, or files that the stage `weights` committed.

Only safetensors are read. The safety checker is not loaded, as it replaces images by black ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from shared.diffusion.generator import BaseSource
from shared.diffusion.stable_diffusion.base_files import FILES, LAYOUT, WEIGHTS, base_files, missing_names
from shared.digests import file_digest
from shared.errors import DataError
from shared.weights.in_place import in_place, remedy_in_folder


@dataclass(frozen=True)
class Base:
    """Identifies a base model that is on local disk."""

    name: str
    """Names it as the study does: a folder, an S3 prefix or a hub name."""
    revision: str | None
    """Gives the commit of a base from the hub; None for any other."""
    folder: Path

    def digests(self, parts: Sequence[str]) -> dict[str, str]:
        """Returns the SHA-256 of each file that these parts are read from, by its path inside the base."""
        found = {}
        for path in self.files(parts):
            found[path] = file_digest(self.folder / path)
        return found

    def files(self, parts: Sequence[str]) -> list[str]:
        """Returns the paths of the files that these parts are read from; raises DataError if one is missing or pickled."""
        paths = []
        for part in parts:
            folder = self.folder / part
            there = [name for name in FILES[part] if (folder / name).is_file()]
            if missing := missing_names(part, there):
                raise DataError(f"finetune.base {self.name}: has no {part}/{missing[0]}; name {LAYOUT}")
            paths += [f"{part}/{name}" for name in there]
            if part in WEIGHTS:
                self._check_weights(part)
                paths.append(f"{part}/{WEIGHTS[part]}")
        return paths

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
        path = self.folder / part / FILES[part][0]
        try:
            values = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise DataError(f"finetune.base {self.name}: {part}/{path.name} cannot be read ({error})") from error
        if not isinstance(values, dict):
            raise DataError(f"finetune.base {self.name}: {part}/{path.name} must hold a JSON object")
        return values

    def _check_weights(self, part: str) -> None:
        wanted = self.folder / part / WEIGHTS[part]
        if wanted.is_file():
            return
        name = f"{part}/{WEIGHTS[part]}"
        there = [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]
        raise DataError(
            f"finetune.base {self.name}: has no {name}{in_place(name, there)}; {remedy_in_folder(name, there)}"
        )


def find_base(name: str, source: BaseSource, weights: Sequence[str] = tuple(WEIGHTS)) -> Base:
    """Returns the base model `name`, after copying it to local disk if necessary. `weights` names the parts whose weights are needed.

    Raises DataError if there is no such model, UnavailableError (exit 75) if its bucket does not answer.
    """
    name = source.location or name
    if source.fetched is not None:
        return Base(name, source.fetched.commit, source.fetched.folder(base_files(weights)))
    if name.startswith("s3://"):
        from shared.artifacts.remote import local_folder

        return Base(name, None, local_folder(name, source.settings, source.scratch))
    if Path(name).is_dir():
        return Base(name, None, Path(name))
    raise DataError(f"finetune.base: there is no folder {name}; name a folder, an s3://bucket/prefix or a hub name")


@dataclass
class Parts:
    """Holds the parts of a loaded model, in float32 on the CPU, in evaluation mode."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: dict[str, Any]
    """Holds the base's noise schedule, from which training and sampling schedulers are made."""

    @property
    def latent_factor(self) -> int:
        """Returns the number of pixels per latent, along each side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))


def load_parts(base: Base, weights: Sequence[str] = tuple(WEIGHTS)) -> Parts:
    """Loads the base. Parts that are not in `weights` stay without weights, on the meta device, for the caller to fill.

    Raises DataError if weights do not fit their configuration, or the parts do not fit each other.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    scheduler = base.config("scheduler")
    parts = Parts(
        unet=_model(base, "unet", UNet2DConditionModel, "unet" in weights),
        vae=_model(base, "vae", AutoencoderKL, "vae" in weights),
        text_encoder=_model(base, "text_encoder", CLIPTextModel, "text_encoder" in weights),
        tokenizer=_tokenizer(base),
        scheduler=scheduler,
    )
    _check_fit(base, parts)
    return parts


def _model(base: Base, part: str, kind: Any, weights: bool) -> Any:
    folder = base.folder / part
    config = base.config(part)
    if weights:
        base.files([part])
    try:
        if not weights:
            with init_empty_weights():
                if part == "text_encoder":
                    return kind(CLIPTextConfig.from_dict(config)).eval()
                return kind.from_config(config).eval()
        model, info = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # these libraries raise all kinds for a damaged file or a wrong shape
        raise DataError(f"finetune.base {base.name}: {part}/ cannot be loaded ({_first_line(error)})") from error
    if info["missing_keys"] or info["mismatched_keys"]:
        name = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))[0]
        raise DataError(
            f"finetune.base {base.name}: {part}/{WEIGHTS[part]} lacks {name}, or has it in another shape; it does not fit its config.json"
        )
    return model.eval()


def _tokenizer(base: Base) -> CLIPTokenizer:
    base.files(["tokenizer"])
    try:
        return CLIPTokenizer.from_pretrained(base.folder / "tokenizer", local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise DataError(f"finetune.base {base.name}: tokenizer/ cannot be loaded ({_first_line(error)})") from error


def _check_fit(base: Base, parts: Parts) -> None:
    """Raises DataError unless the parts are those of one Stable Diffusion 1.x or 2.x text-to-image model."""
    unet, text = parts.unet.config, parts.text_encoder.config
    kind = parts.scheduler.get("prediction_type", "epsilon")
    problem = None
    if kind not in ("epsilon", "v_prediction"):
        problem = f"prediction_type is {kind!r}, not epsilon or v_prediction"
    elif unet.in_channels != parts.vae.config.latent_channels:
        problem = f"the UNet reads {unet.in_channels} channels and the VAE makes {parts.vae.config.latent_channels} (an inpainting or depth model)"
    elif unet.cross_attention_dim != text.hidden_size:
        problem = f"the UNet reads text of width {unet.cross_attention_dim}, the text encoder writes {text.hidden_size} (a model with two text encoders)"
    elif len(parts.tokenizer) > text.vocab_size:
        problem = f"the tokenizer has {len(parts.tokenizer)} tokens, the text encoder {text.vocab_size}"
    if problem:
        raise DataError(f"finetune.base {base.name}: {problem}; name a text-to-image Stable Diffusion 1.x or 2.x")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
