"""Computes with Stable Diffusion 1.x and 2.x."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from torch import nn

from shared.diffusion.text_to_image.diffusion import PREDICTIONS, Diffusion
from shared.diffusion.text_to_image.families.family import Condition, Family, stack
from shared.diffusion.text_to_image.families.table import side_multiple
from shared.diffusion.text_to_image.noise import NoiseProcess


class StableDiffusion(Family):
    """Conditions a UNet on the embeddings of one CLIP text encoder, which can be trained too."""

    pipeline: ClassVar[type] = StableDiffusionPipeline
    denoiser = "unet"
    parts: ClassVar = {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "scheduler": "",
    }
    encoder_type: ClassVar[torch.dtype | None] = None
    kept: ClassVar[torch.dtype] = torch.float16
    encode_batch: ClassVar[int] = 64

    @property
    def multiple(self) -> int:
        """Returns the number for a UNet, which halves latents at each level but the last."""
        vae, unet = (len(self.base.value(part, "block_out_channels", list)) for part in ("vae", "unet"))
        return side_multiple(vae, unet)

    def process(self, side: int) -> NoiseProcess:
        """Returns the diffusion process of the base."""
        return Diffusion(self.base.config("scheduler"))

    def tokenize(self, tokenizer: Any, prompts: Sequence[str]) -> list[Condition]:
        """Returns the token numbers `[t]` of each prompt, padded or truncated to the length that the text encoder reads."""
        numbers = tokenizer(
            list(prompts),
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return [{"tokens": row} for row in numbers]

    def embed(self, text_encoder: nn.Module, conditions: Sequence[Condition]) -> list[Condition]:
        """Returns the embeddings `[t, d]` of token numbers."""
        numbers = stack(conditions, "tokens").to(next(text_encoder.parameters()).device)
        return [{"prompt": embedding} for embedding in text_encoder(numbers).last_hidden_state]

    def encode(self, encoders: Mapping[str, Any], prompts: Sequence[str]) -> list[Condition]:
        """Returns the embeddings of prompts."""
        return self.embed(encoders["text_encoder"], self.tokenize(encoders["tokenizer"], prompts))

    def predict(
        self, model: nn.Module, noisy: torch.Tensor, level: torch.Tensor, conditions: Sequence[Condition]
    ) -> torch.Tensor:
        """Returns the predicted noise or velocity."""
        predicted: torch.Tensor = model(noisy, level, stack(conditions, "prompt")).sample
        return predicted

    def lora_names(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns the older names of diffusers, under which the weights of earlier versions are stored."""
        names: dict[str, torch.Tensor] = convert_state_dict_to_diffusers(state)
        return names

    def problem(self) -> str | None:
        """Returns why the parts are not those of one such model."""
        predicts = self.base.config("scheduler").get("prediction_type", "epsilon")
        if predicts not in PREDICTIONS:
            return f"prediction_type is {predicts!r}, not epsilon or v_prediction"
        if problem := super().problem():
            return problem
        reads, writes = self.base.config("unet").get("cross_attention_dim"), self.text_width()
        if reads != writes:
            more = " (a model with two text encoders)" if len(self.encoders) == 2 else ""
            return f"the UNet reads text of width {reads}, the text encoder writes {writes}{more}"
        return None

    def text_width(self) -> int:
        """Returns the width of the embeddings of text."""
        return self.base.value("text_encoder", "hidden_size", int)
