"""Defines the interface of the two noise processes: how noise is put on latents, what is predicted, and how an image is made from noise."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch


class NoiseProcess(Protocol):
    """Owns the loss, the sampling and image-to-image of the families that it serves.

    A *level* is what the denoiser is told about the noise: a timestep, or a share in 0 … 1.
    """

    def draw_levels(self, random: np.random.Generator, size: int) -> torch.Tensor:
        """Returns the levels `[size]` at which a batch is trained."""

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """Returns latents with noise, both `[n, c, h, w]`, at levels `[n]`."""

    def loss(
        self,
        predicted: torch.Tensor,
        latents: torch.Tensor,
        noise: torch.Tensor,
        level: torch.Tensor,
        gamma: float | None,
    ) -> torch.Tensor:
        """Returns the mean over the batch of the squared error of a prediction `[n, c, h, w]`, a scalar; `gamma` is `finetune.min_snr`."""

    def scheduler(self, steps: int, few_step: str | None = None) -> Any:
        """Returns a new scheduler of diffusers, set to `steps` steps; `few_step` is `generate.few_step.scheduler`, if it is set."""

    def shares(self, scheduler: Any) -> torch.Tensor:
        """Returns the share of noise at the beginning of each step, `[steps]`: 1 is noise alone, 0 the image alone."""

    def start(self, scheduler: Any, noise: torch.Tensor, latents: torch.Tensor | None, first: int) -> torch.Tensor:
        """Returns the state before step `first`: noise alone, or `latents` with that step's share of it; the scheduler then begins there."""

    def level(self, timestep: torch.Tensor) -> torch.Tensor:
        """Returns the level that the denoiser is told at one of the scheduler's timesteps."""
