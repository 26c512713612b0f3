"""Computes with diffusion models (DDPM), which predict the noise or the velocity: Stable Diffusion 1.x, 2.x and XL."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, LCMScheduler
from torch.nn import functional

from shared.diffusion.text_to_image.noise import NoiseProcess

PREDICTIONS = ("epsilon", "v_prediction")


class Diffusion(NoiseProcess):
    """Trains on the base's noise schedule and samples with DPM-Solver++; a level is one of the schedule's timesteps."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Takes the configuration of the base's scheduler."""
        self._config = config
        self._ddpm = DDPMScheduler.from_config(config)

    def draw_levels(self, random: np.random.Generator, size: int) -> torch.Tensor:
        """Returns timesteps `[size]`, all equally likely."""
        return torch.from_numpy(random.integers(0, self._ddpm.config.num_train_timesteps, size))

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """Returns noisy latents `[n, c, h, w]`."""
        noisy: torch.Tensor = self._ddpm.add_noise(latents, noise, level)
        return noisy

    def loss(
        self,
        predicted: torch.Tensor,
        latents: torch.Tensor,
        noise: torch.Tensor,
        level: torch.Tensor,
        gamma: float | None,
    ) -> torch.Tensor:
        """Returns the mean over the batch of the (weighted) mean squared error, a scalar; gamma None weighs all timesteps equally."""
        kind = self._ddpm.config.prediction_type
        target = self._ddpm.get_velocity(latents, noise, level) if kind == "v_prediction" else noise
        errors = functional.mse_loss(predicted.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))
        if gamma is not None:
            errors = errors * min_snr_weights(self._ddpm.alphas_cumprod, level, gamma, kind)
        return errors.mean()

    def scheduler(self, steps: int, few_step: str | None = None) -> Any:
        """Returns DPM-Solver++ of the second order on the base's noise schedule, or for few steps that of consistency models or Euler's.

        Euler's steps begin at the last timestep, pure noise, where a LoRA for few steps was distilled to begin.
        """
        if few_step == "lcm":
            scheduler = LCMScheduler.from_config(self._config)
        elif few_step == "euler":
            scheduler = EulerDiscreteScheduler.from_config(self._config, timestep_spacing="trailing")
        else:
            scheduler = DPMSolverMultistepScheduler.from_config(
                self._config, algorithm_type="dpmsolver++", solver_order=2
            )
        with warnings.catch_warnings():  # diffusers 0.42 hands numpy a tensor in a way that numpy 2 deprecates
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            scheduler.set_timesteps(steps)
        return scheduler

    def shares(self, scheduler: Any) -> torch.Tensor:
        """Returns s / (a + s) at each timestep, if a is the factor of the image and s that of the noise."""
        alphas = scheduler.alphas_cumprod.double()[scheduler.timesteps.long()]
        shares: torch.Tensor = (1 - alphas).sqrt() / (alphas.sqrt() + (1 - alphas).sqrt())
        return shares

    def start(self, scheduler: Any, noise: torch.Tensor, latents: torch.Tensor | None, first: int) -> torch.Tensor:
        """Returns the state before step `first`."""
        state: torch.Tensor
        if latents is None:
            state = noise * scheduler.init_noise_sigma
            return state
        scheduler.set_begin_index(first)
        state = scheduler.add_noise(latents, noise, scheduler.timesteps[first : first + 1].repeat(len(noise)))
        return state

    def level(self, timestep: torch.Tensor) -> torch.Tensor:
        """Returns the timestep as it is."""
        return timestep


def min_snr_weights(
    alphas_cumprod: torch.Tensor, timesteps: torch.Tensor, gamma: float, prediction_type: str
) -> torch.Tensor:
    """Returns the weights of the squared error at `timesteps`, `[n]` (Hang et al. 2023, equation 8 and section 3.4).

    They are min(SNR, gamma) / SNR for a network that predicts the noise, and min(SNR, gamma) / (SNR + 1) for one that predicts the
    velocity. Here SNR = a / (1 - a), and a is the cumulative product of the alphas.
    """
    alphas = alphas_cumprod.to(timesteps.device)[timesteps].double()
    snr = alphas / (1 - alphas)
    if prediction_type == "v_prediction":
        return (snr.clamp(max=gamma) / (snr + 1)).float()
    # min(SNR, gamma) / SNR, and 1 at an SNR of 0, with which some schedules end
    return (gamma / snr).clamp(max=1).float()
