"""Computes the denoising loss of Stable Diffusion: the target of the prediction, and the weight of each noise level."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler
from torch.nn import functional


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


def denoising_loss(
    predicted: torch.Tensor,
    latents: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    scheduler: DDPMScheduler,
    gamma: float | None,
) -> torch.Tensor:
    """Returns the mean over the batch of the (weighted) mean squared error, a scalar.

    `predicted`, `latents` and `noise` are `[n, 4, h, w]`, `timesteps` `[n]`. `gamma` is that of `min_snr_weights`; None weighs all equally.
    """
    kind = scheduler.config.prediction_type
    target = scheduler.get_velocity(latents, noise, timesteps) if kind == "v_prediction" else noise
    errors = functional.mse_loss(predicted.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))
    if gamma is not None:
        errors = errors * min_snr_weights(scheduler.alphas_cumprod, timesteps, gamma, kind)
    return errors.mean()
