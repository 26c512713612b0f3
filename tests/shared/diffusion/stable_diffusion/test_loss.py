from __future__ import annotations

import pytest
import torch
from diffusers import DDPMScheduler

from shared.diffusion.stable_diffusion.loss import denoising_loss, min_snr_weights

# alphas_cumprod .9 and .5 are SNR 9 and 1; with gamma 5: min(SNR, 5) is 5 and 1
ALPHAS = torch.tensor([0.9, 0.5, 0.0])


@pytest.mark.parametrize(
    ("prediction_type", "expected"),
    [("epsilon", [5 / 9, 1.0, 1.0]), ("v_prediction", [5 / 10, 1 / 2, 0.0])],
)
def test_min_snr_by_hand(prediction_type: str, expected: list[float]) -> None:
    weights = min_snr_weights(ALPHAS, torch.arange(3), 5.0, prediction_type)
    torch.testing.assert_close(weights, torch.tensor(expected))


def test_the_loss_of_a_batch_by_hand() -> None:
    scheduler = DDPMScheduler(prediction_type="epsilon")
    noise = torch.zeros(2, 4, 2, 2)
    predicted = torch.stack([torch.full((4, 2, 2), 1.0), torch.full((4, 2, 2), 3.0)])
    timesteps = torch.tensor([0, 900])
    plain = denoising_loss(predicted, noise, noise, timesteps, scheduler, None)
    assert plain.item() == pytest.approx((1 + 9) / 2)
    first = scheduler.alphas_cumprod[0].item()
    weight = 5 / (first / (1 - first))  # the first level has hardly any noise, the second hardly any image
    weighted = denoising_loss(predicted, noise, noise, timesteps, scheduler, 5.0)
    assert weighted.item() == pytest.approx((weight + 9) / 2, rel=1e-3)


def test_the_velocity_is_the_target_where_the_base_predicts_it() -> None:
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 4, 2, 2, generator=generator)
    timesteps = torch.tensor([500])
    alpha = scheduler.alphas_cumprod[500]
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    assert denoising_loss(velocity, latents, noise, timesteps, scheduler, 5.0).item() == pytest.approx(0, abs=1e-10)
