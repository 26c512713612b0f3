"""Computes with Stable Diffusion XL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionXLPipeline
from torch import nn

from shared.diffusion.text_to_image.families.family import Condition, Family, stack
from shared.diffusion.text_to_image.families.stable_diffusion import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """Conditions a UNet on the embeddings of two CLIP text encoders, and on the size of the image."""

    pipeline = StableDiffusionXLPipeline
    parts: ClassVar = {
        **StableDiffusion.parts,
        "text_encoder_2": "CLIPTextModelWithProjection",
        "tokenizer_2": "CLIPTokenizer",
    }
    encoder_type = torch.bfloat16
    kept = torch.bfloat16
    encode_batch = 1

    def encode(self, encoders: Mapping[str, Any], prompts: Sequence[str]) -> list[Condition]:
        """Returns embeddings of both encoders and their pooled form; zeros for the empty prompt if the base was trained so."""
        pipeline = StableDiffusionXLPipeline(vae=None, unet=None, scheduler=None, **encoders)
        prompt, _, pooled, _ = pipeline.encode_prompt(list(prompts), do_classifier_free_guidance=False)
        zeros = self.base.index.get("force_zeros_for_empty_prompt", True)
        kept = [0.0 if zeros and not text else 1.0 for text in prompts]
        return [{"prompt": a * k, "pooled": b * k} for a, b, k in zip(prompt, pooled, kept, strict=True)]

    def predict(
        self, model: nn.Module, noisy: torch.Tensor, level: torch.Tensor, conditions: Sequence[Condition]
    ) -> torch.Tensor:
        """Returns the predicted noise or velocity for whole images of the size that they have."""
        side = noisy.shape[-1] * self.factor
        sizes = torch.tensor([[side, side, 0, 0, side, side]], device=noisy.device, dtype=noisy.dtype)
        added = {"text_embeds": stack(conditions, "pooled"), "time_ids": sizes.expand(len(noisy), -1)}
        predicted: torch.Tensor = model(noisy, level, stack(conditions, "prompt"), added_cond_kwargs=added).sample
        return predicted

    def lora_names(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns the names of peft."""
        return Family.lora_names(self, state)

    def text_width(self) -> int:
        """Returns the width of the embeddings of both encoders, side by side."""
        return super().text_width() + self.base.value("text_encoder_2", "hidden_size", int)
