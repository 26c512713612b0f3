"""Computes with Stable Diffusion 3.5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusion3Pipeline
from torch import nn

from shared.diffusion.text_to_image.families.family import Condition, Family, stack
from shared.diffusion.text_to_image.flow import Flow
from shared.diffusion.text_to_image.noise import NoiseProcess


class StableDiffusion3(Family):
    """Conditions a transformer on the embeddings of two CLIP text encoders and of T5."""

    pipeline = StableDiffusion3Pipeline
    parts: ClassVar = {
        "transformer": "SD3Transformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModelWithProjection",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "text_encoder_3": "T5EncoderModel",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
        "tokenizer_3": "T5TokenizerFast",
        "scheduler": "",
    }

    def process(self, side: int) -> NoiseProcess:
        """Returns the flow of the base, whose scheduler spaces the steps."""
        return Flow(self.base.config("scheduler"), self.tokens(side), spaced=False)

    def encode(self, encoders: Mapping[str, Any], prompts: Sequence[str]) -> list[Condition]:
        """Returns the joint embeddings `[77 + 256, d]` and the pooled form of prompts."""
        pipeline = StableDiffusion3Pipeline(vae=None, transformer=None, scheduler=None, **encoders)
        prompt, _, pooled, _ = pipeline.encode_prompt(list(prompts), None, None, do_classifier_free_guidance=False)
        return [{"prompt": a, "pooled": b} for a, b in zip(prompt, pooled, strict=True)]

    def predict(
        self, model: nn.Module, noisy: torch.Tensor, level: torch.Tensor, conditions: Sequence[Condition]
    ) -> torch.Tensor:
        """Returns the predicted flow."""
        predicted: torch.Tensor = model(
            noisy, stack(conditions, "prompt"), stack(conditions, "pooled"), level * 1000, return_dict=False
        )[0]
        return predicted
