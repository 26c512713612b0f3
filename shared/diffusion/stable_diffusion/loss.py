"""The denoising loss of Stable Diffusion: what the network is to predict, and how much each noise level weighs."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler
from torch.nn import functional


def min_snr_weights(
    alphas_cumprod: torch.Tensor, timesteps: torch.Tensor, gamma: float, prediction_type: str
) -> torch.Tensor:
    """Weights of the squared error at `timesteps` `[n]` (Hang et al. 2023, equation 8 and section 3.4).

    With SNR = a / (1 - a), a the cumulative product of the alphas: min(SNR, gamma) / SNR for a network that predicts the noise,
    min(SNR, gamma) / (SNR + 1) for one that predicts the velocity.
    """
    alphas = alphas_cumprod.to(timesteps.device)[timesteps].double()
    snr = alphas / (1 - alphas)
    if prediction_type == "v_prediction":
        return (snr.clamp(max=gamma) / (snr + 1)).float()
    return (gamma / snr).clamp(max=1).float()  # min(SNR, gamma) / SNR, and 1 where the schedule ends with SNR 0


def denoising_loss(
    predicted: torch.Tensor,
    latents: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    scheduler: DDPMScheduler,
    gamma: float | None,
) -> torch.Tensor:
    """Mean over the batch of the (weighted) mean squared error, a scalar; `[n, 4, h, w]` each, timesteps `[n]`."""
    kind = scheduler.config.prediction_type
    target = scheduler.get_velocity(latents, noise, timesteps) if kind == "v_prediction" else noise
    errors = functional.mse_loss(predicted.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))
    if gamma is not None:
        errors = errors * min_snr_weights(scheduler.alphas_cumprod, timesteps, gamma, kind)
    return errors.mean()
