"""Computes with FLUX.2-klein-base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import Flux2KleinPipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch import nn

from shared.diffusion.text_to_image.autoencoder import Autoencoder
from shared.diffusion.text_to_image.families.family import Condition, Family, stack
from shared.diffusion.text_to_image.flow import Flow
from shared.diffusion.text_to_image.noise import NoiseProcess


class Flux2Klein(Family):
    """Conditions a transformer on hidden states of a language model, Qwen3."""

    pipeline = Flux2KleinPipeline
    parts: ClassVar = {
        "transformer": "Flux2Transformer2DModel",
        "vae": "AutoencoderKLFlux2",
        "text_encoder": "Qwen3ForCausalLM",
        "tokenizer": "Qwen2Tokenizer",
        "scheduler": "",
    }

    def latent_shape(self, side: int) -> tuple[int, int, int]:
        """Returns the shape of patches of 2 x 2 latents."""
        channels, height, width = self.vae_shape(side)
        return 4 * channels, height // 2, width // 2

    def process(self, side: int) -> NoiseProcess:
        """Returns the flow of the base; its shift depends on the number of steps too."""
        return Flow(self.base.config("scheduler"), self.tokens(side), mu=compute_empirical_mu)

    def autoencoder(self, dtype: torch.dtype = torch.float32) -> Autoencoder:
        """Returns the VAE, whose latents are normalised by statistics of patches."""
        return PatchAutoencoder(self.load("vae", dtype))

    def encode(self, encoders: Mapping[str, Any], prompts: Sequence[str]) -> list[Condition]:
        """Returns three hidden states `[512, 3 d]` of prompts."""
        pipeline = Flux2KleinPipeline(vae=None, transformer=None, scheduler=None, **encoders)
        prompt, _ = pipeline.encode_prompt(list(prompts))
        return [{"prompt": embedding} for embedding in prompt]

    def predict(
        self, model: nn.Module, noisy: torch.Tensor, level: torch.Tensor, conditions: Sequence[Condition]
    ) -> torch.Tensor:
        """Returns the predicted flow."""
        prompt, count = stack(conditions, "prompt"), len(noisy)
        one, (height, width) = torch.arange(1), noisy.shape[-2:]
        image = torch.cartesian_prod(one, torch.arange(height), torch.arange(width), one).to(noisy.device)
        text = torch.cartesian_prod(one, one, one, torch.arange(prompt.shape[1])).to(noisy.device)
        predicted: torch.Tensor = model(
            noisy.flatten(2).transpose(1, 2),
            prompt,
            level.to(noisy.dtype),
            img_ids=image.expand(count, -1, -1),
            txt_ids=text.expand(count, -1, -1),
            guidance=None,
            return_dict=False,
        )[0]
        return predicted.transpose(1, 2).reshape(noisy.shape)

    def problem(self) -> str | None:
        """Returns why the base cannot be fine-tuned."""
        if self.base.index.get("is_distilled"):
            return "it is distilled to a few steps, which fine-tuning undoes (FLUX.2-klein-base is not)"
        return super().problem()


class PatchAutoencoder(Autoencoder):
    """Joins 2 x 2 latents into one of four times as many channels, and normalises each channel by the VAE's batch norm."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self._mean = vae.bn.running_mean.detach().clone().view(1, -1, 1, 1)
        self._deviation = torch.sqrt(vae.bn.running_var.detach().clone().view(1, -1, 1, 1) + vae.config.batch_norm_eps)

    def normalise(self, latents: torch.Tensor) -> torch.Tensor:
        """Returns patches `[b, 4c, h/2, w/2]`."""
        patches: torch.Tensor = Flux2KleinPipeline._patchify_latents(latents)
        normalised: torch.Tensor = (patches - self._mean.to(patches)) / self._deviation.to(patches)
        return normalised

    def denormalise(self, latents: torch.Tensor) -> torch.Tensor:
        """Returns latents `[b, c, h, w]` of patches."""
        patches = latents * self._deviation.to(latents) + self._mean.to(latents)
        single: torch.Tensor = Flux2KleinPipeline._unpatchify_latents(patches)
        return single
