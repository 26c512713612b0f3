"""Computes with Z-Image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import ZImagePipeline
from torch import nn

from shared.diffusion.text_to_image.families.family import Condition, Family
from shared.diffusion.text_to_image.flow import Flow
from shared.diffusion.text_to_image.noise import NoiseProcess


class ZImage(Family):
    """Conditions a transformer on hidden states of a language model, Qwen3, as many as a prompt has tokens."""

    pipeline = ZImagePipeline
    parts: ClassVar = {
        "transformer": "ZImageTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "Qwen3Model",
        "tokenizer": "Qwen2Tokenizer",
        "scheduler": "",
    }

    def process(self, side: int) -> NoiseProcess:
        """Returns the flow of the base."""
        return Flow(self.base.config("scheduler"), self.tokens(side))

    def encode(self, encoders: Mapping[str, Any], prompts: Sequence[str]) -> list[Condition]:
        """Returns the hidden states `[length, d]` of prompts."""
        pipeline = ZImagePipeline(vae=None, transformer=None, scheduler=None, **encoders)
        # a new list, as the pipeline writes into the one that it is given
        found, _ = pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False)
        return [{"prompt": embedding} for embedding in found]

    def predict(
        self, model: nn.Module, noisy: torch.Tensor, level: torch.Tensor, conditions: Sequence[Condition]
    ) -> torch.Tensor:
        """Returns the predicted flow, which the network gives the other sign, as it counts time from the noise to the image."""
        prompts = [condition["prompt"] for condition in conditions]
        found = model(list(noisy.unsqueeze(2)), (1000 - 1000 * level) / 1000, prompts, return_dict=False)[0]
        return -torch.stack(found).squeeze(2)
