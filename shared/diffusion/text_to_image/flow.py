"""Computes with rectified flows, which predict the direction from the image to the noise: Stable Diffusion 3.5, FLUX.2-klein, Z-Image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchLCMScheduler
from torch.nn import functional

from shared.diffusion.text_to_image.noise import NoiseProcess


class Flow(NoiseProcess):
    """Samples by Euler steps on the base's schedule; a level is the share of noise, 0 … 1."""

    def __init__(
        self,
        config: Mapping[str, Any],
        tokens: int,
        spaced: bool = True,
        mu: Callable[[int, int], float] | None = None,
    ) -> None:
        """Takes the configuration of the base's scheduler, and the number of tokens of an image, on which the shift of some schedules depends.

        `spaced` says whether steps are spaced evenly before they are shifted; otherwise the scheduler spaces them. `mu` returns the shift
        of a family that has a rule of its own, by tokens and steps.
        """
        self._config, self._tokens, self._spaced, self._own_mu = config, tokens, spaced, mu

    def _mu(self) -> float:
        """Returns the logarithm of the shift, which rises linearly with the tokens of an image (Esser et al. 2024, section 5.3.2)."""
        low, high = self._config.get("base_image_seq_len", 256), self._config.get("max_image_seq_len", 4096)
        first, last = self._config.get("base_shift", 0.5), self._config.get("max_shift", 1.15)
        slope = (last - first) / (high - low)
        return float(self._tokens * slope + first - slope * low)

    def _shift(self) -> float:
        """Returns the shift of the levels in training, which knows no steps."""
        if self._config.get("use_dynamic_shifting"):
            return math.exp(self._mu())
        return float(self._config.get("shift", 1.0))

    def draw_levels(self, random: np.random.Generator, size: int) -> torch.Tensor:
        """Returns levels `[size]`: the logistic function of normal numbers, shifted (Esser et al. 2024, section 3.1)."""
        even = 1 / (1 + np.exp(-random.standard_normal(size)))
        shift = self._shift()
        return torch.from_numpy(shift * even / (1 + (shift - 1) * even)).float()

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """Returns noisy latents `[n, c, h, w]`: the mean of both, weighted by the share of noise."""
        share = level.view(-1, 1, 1, 1)
        return (1 - share) * latents + share * noise

    def loss(
        self,
        predicted: torch.Tensor,
        latents: torch.Tensor,
        noise: torch.Tensor,
        level: torch.Tensor,
        gamma: float | None,
    ) -> torch.Tensor:
        """Returns the mean squared error over the batch, a scalar. All levels weigh the same, whatever gamma is."""
        return functional.mse_loss(predicted.float(), (noise - latents).float())

    def scheduler(self, steps: int, few_step: str | None = None) -> Any:
        """Returns the base's scheduler, which suits Euler's few steps too, or that of consistency models on its schedule."""
        kind = FlowMatchLCMScheduler if few_step == "lcm" else FlowMatchEulerDiscreteScheduler
        scheduler = kind.from_config(self._config)
        values: dict[str, Any] = {"num_inference_steps": steps}
        if self._config.get("use_dynamic_shifting"):
            values["mu"] = self._mu() if self._own_mu is None else self._own_mu(self._tokens, steps)
        if self._spaced:
            values["sigmas"] = np.linspace(1.0, 1 / steps, steps)
        scheduler.set_timesteps(**values)
        return scheduler

    def shares(self, scheduler: Any) -> torch.Tensor:
        """Returns the share of noise before each step."""
        shares: torch.Tensor = scheduler.sigmas[:-1].double()
        return shares

    def start(self, scheduler: Any, noise: torch.Tensor, latents: torch.Tensor | None, first: int) -> torch.Tensor:
        """Returns the state before step `first`."""
        if latents is None:
            return noise
        scheduler.set_begin_index(first)
        timesteps = scheduler.timesteps[first : first + 1].repeat(len(noise))
        state: torch.Tensor = scheduler.scale_noise(latents, timesteps, noise)
        return state

    def level(self, timestep: torch.Tensor) -> torch.Tensor:
        """Returns the share of noise at a timestep of 0 … 1000."""
        return timestep / 1000
