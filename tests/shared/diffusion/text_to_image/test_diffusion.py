from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from shared.diffusion.text_to_image.diffusion import Diffusion, min_snr_weights

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
    process = Diffusion(DDPMScheduler(prediction_type="epsilon").config)
    noise = torch.zeros(2, 4, 2, 2)
    predicted = torch.stack([torch.full((4, 2, 2), 1.0), torch.full((4, 2, 2), 3.0)])
    timesteps = torch.tensor([0, 900])
    assert process.loss(predicted, noise, noise, timesteps, None).item() == pytest.approx((1 + 9) / 2)
    first = DDPMScheduler().alphas_cumprod[0].item()
    weight = 5 / (first / (1 - first))  # the first level has hardly any noise, the second hardly any image
    weighted = process.loss(predicted, noise, noise, timesteps, 5.0)
    assert weighted.item() == pytest.approx((weight + 9) / 2, rel=1e-3)


def test_the_velocity_is_the_target_if_the_base_predicts_it() -> None:
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 4, 2, 2, generator=generator)
    timesteps = torch.tensor([500])
    alpha = scheduler.alphas_cumprod[500]
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    loss = Diffusion(scheduler.config).loss(velocity, latents, noise, timesteps, 5.0)
    assert loss.item() == pytest.approx(0, abs=1e-10)


def test_levels_are_timesteps_that_are_equally_likely() -> None:
    levels = Diffusion(DDPMScheduler().config).draw_levels(np.random.default_rng(0), 20_000)
    assert (levels.min().item(), levels.max().item()) == (0, 999)
    assert levels.double().mean().item() == pytest.approx(499.5, abs=5)


def test_the_share_of_noise_falls_from_all_to_little() -> None:
    process = Diffusion(DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).config)
    shares = process.shares(process.scheduler(25))
    assert (shares.diff() < 0).all()
    assert shares[0] > 0.93
    assert shares[25 - round(0.65 * 25)].item() == pytest.approx(
        0.73, abs=0.01
    )  # 0.65 of the steps is more of the noise
