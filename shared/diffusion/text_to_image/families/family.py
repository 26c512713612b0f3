"""Defines what differs between the families of text-to-image models, and holds what most of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pkgutil import resolve_name
from typing import Any, ClassVar

import torch
from torch import nn

from shared.diffusion.text_to_image.autoencoder import Autoencoder
from shared.diffusion.text_to_image.base import Base, load_part
from shared.diffusion.text_to_image.families.table import FamilyKind, family_kind, side_multiple
from shared.diffusion.text_to_image.noise import NoiseProcess
from shared.errors import ConfigError, DataError

Condition = Mapping[str, torch.Tensor]
"""Holds what the denoiser reads of one prompt: tensors by name, without an axis for the batch."""


class Family(ABC):
    """Computes with the bases of one family. A subclass says what its parts are, what a prompt becomes and how its denoiser is called."""

    parts: ClassVar[Mapping[str, str]]
    """Maps the parts to their classes in diffusers or, for text encoders and tokenizers, transformers."""
    pipeline: ClassVar[type]
    """Gives the pipeline of diffusers, which encodes prompts in most families, and reads a LoRA of any form in all."""
    denoiser: ClassVar[str] = "transformer"
    """Names the part that is trained."""
    encoder_type: ClassVar[torch.dtype | None] = torch.bfloat16
    """Gives the type of the text encoders unless the precision is fp32: float16 overflows in most of them. None takes that of the denoiser."""
    kept: ClassVar[torch.dtype] = torch.bfloat16
    """Gives the type in which a training keeps conditions unless the precision is fp32."""
    encode_batch: ClassVar[int] = 1
    """Sets how many captions are encoded at once in training."""

    def __init__(self, kind: FamilyKind, base: Base) -> None:
        self.kind, self.base = kind, base

    @property
    def encoders(self) -> list[str]:
        """Returns the parts that encode prompts, tokenizers first."""
        return sorted(part for part in self.parts if part.startswith(("tokenizer", "text_encoder")))[::-1]

    @cached_property
    def factor(self) -> int:
        """Returns the number of pixels per latent of the VAE, along each side."""
        return int(2 ** (len(self.base.value("vae", "block_out_channels", list)) - 1))

    @property
    def multiple(self) -> int:
        """Returns the number of pixels of which the sides of images must be multiples."""
        return side_multiple(len(self.base.value("vae", "block_out_channels", list)))

    def vae_shape(self, side: int) -> tuple[int, int, int]:
        """Returns the shape `[c, h, w]` of the VAE's latents of an image of `side` pixels."""
        return self.base.value("vae", "latent_channels", int), side // self.factor, side // self.factor

    def latent_shape(self, side: int) -> tuple[int, int, int]:
        """Returns the shape `[c, h, w]` of the normalised latents, as the denoiser reads them."""
        return self.vae_shape(side)

    def tokens(self, side: int) -> int:
        """Returns the number of tokens of an image in a transformer that reads patches of 2 x 2 latents."""
        return int((side // self.factor // 2) ** 2)

    @abstractmethod
    def process(self, side: int) -> NoiseProcess:
        """Returns the noise process for images of `side` pixels."""

    def load(self, part: str, dtype: torch.dtype = torch.float32, weights: bool = True) -> Any:
        """Returns a part of the base (see `load_part`)."""
        return load_part(self.base, part, self.parts[part], dtype, weights)

    def load_encoders(
        self, device: torch.device, dtype: torch.dtype, load: Callable[[str, torch.dtype], Any] | None = None
    ) -> dict[str, Any]:
        """Returns the parts that encode prompts, by `load` if they may be trained ones.

        Raises DataError if a tokenizer does not belong to its text encoder.
        """
        found: dict[str, Any] = {}
        for part in self.encoders:
            found[part] = (load or self.load)(part, dtype)
            if part.startswith("text_encoder"):
                self.check_tokenizer(found[part.replace("text_encoder", "tokenizer")], found[part], part)
                found[part].to(device)
        return found

    def check_tokenizer(self, tokenizer: Any, encoder: Any, part: str) -> None:
        """Raises DataError if a tokenizer has more tokens than its text encoder, the part of that name, knows."""
        known = encoder.get_input_embeddings().num_embeddings
        if len(tokenizer) > known:
            raise DataError(
                f"finetune.base {self.base.name}: the tokenizer has {len(tokenizer)} tokens, the {part} {known}; "
                f"name a text-to-image base of {self.kind.name}"
            )

    def encoder_dtype(self, precision: torch.dtype) -> torch.dtype:
        """Returns the type of text encoders, by the precision of the denoiser."""
        return precision if self.encoder_type is None or precision == torch.float32 else self.encoder_type

    def training_encoder_dtype(self, precise: bool) -> torch.dtype:
        """Returns the type of text encoders that encode captions for a training; `precise` says that it is in fp32."""
        return torch.float32 if precise or self.encoder_type is None else self.encoder_type

    def autoencoder(self, dtype: torch.dtype = torch.float32) -> Autoencoder:
        """Returns the VAE."""
        return Autoencoder(self.load("vae", dtype))

    def autoencoder_dtype(self, precision: torch.dtype) -> torch.dtype:
        """Returns the type of the VAE, by the precision of the denoiser: float32 in place of float16, which overflows in some VAEs."""
        return torch.float32 if precision == torch.float16 else precision

    @abstractmethod
    def encode(self, encoders: Mapping[str, Any], prompts: Sequence[str]) -> list[Condition]:
        """Returns the conditions of prompts, by the parts of `encoders`; the empty prompt stands for none in classifier-free guidance."""

    @abstractmethod
    def predict(
        self, model: nn.Module, noisy: torch.Tensor, level: torch.Tensor, conditions: Sequence[Condition]
    ) -> torch.Tensor:
        """Returns the prediction of the denoiser for noisy latents `[n, c, h, w]` at levels `[n]`, in the shape of the latents."""

    def lora_names(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns LoRA's tensors under the names that are stored: those of peft, which every pipeline of diffusers reads."""
        return state

    def check(self) -> None:
        """Raises DataError unless all parts are there and belong to one text-to-image model of this family."""
        self.base.files(list(self.parts))
        if problem := self.problem():
            other = "" if self.base.layout.index else ", or set finetune.generator to text-to-image, which knows others"
            raise DataError(
                f"finetune.base {self.base.name}: {problem}; name a text-to-image base of {self.kind.name}{other}"
            )

    def problem(self) -> str | None:
        """Returns why the parts do not belong together, by their configurations, or None."""
        reads, makes = self.base.config(self.denoiser).get("in_channels"), self.latent_shape(1024)[0]
        if reads != makes:
            return (
                f"the {self.denoiser} reads {reads} channels and the VAE makes {makes} (an inpainting or depth model)"
            )
        return None

    def check_resolution(self, side: int) -> None:
        """Raises ConfigError if images of `side` pixels do not suit the denoiser."""
        if side % self.multiple:
            raise ConfigError(
                f"finetune.resolution: must be a multiple of {self.multiple} for {self.base.name}, got {side}"
            )

    def check_precision(self, precision: str) -> None:
        """Raises ConfigError if the family cannot compute in a precision."""
        if precision not in self.kind.precisions:
            raise ConfigError(
                f"finetune.precision: {precision} overflows in {self.kind.name}; set it to {' or '.join(self.kind.precisions)}"
            )


def stack(conditions: Sequence[Condition], name: str) -> torch.Tensor:
    """Returns one of the tensors of all conditions, `[n, …]`."""
    return torch.stack([condition[name] for condition in conditions])


def find_family(base: Base) -> Family:
    """Returns the family of a base, by its model_index.json; raises DataError if it is of none, or is not complete.

    A base whose layout has no index is a Stable Diffusion 1.x or 2.x.
    """
    pipeline = base.index.get("_class_name") if base.layout.index else "StableDiffusionPipeline"
    kind = family_kind(pipeline, base.name)
    family: Family = resolve_name(kind.family)(kind, base)
    family.check()
    return family
