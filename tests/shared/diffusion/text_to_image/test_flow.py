from __future__ import annotations

import numpy as np
import pytest
import torch

from shared.diffusion.text_to_image.flow import Flow

PLAIN = {"shift": 3.0}
DYNAMIC = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}


def test_noise_and_image_are_mixed_by_their_shares() -> None:
    flow = Flow(PLAIN, 256)
    latents, noise = torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)
    assert flow.add_noise(latents, noise, torch.tensor([0.25, 1.0])).flatten().tolist() == [0.25, 1.0]


def test_the_direction_to_the_noise_is_the_target() -> None:
    flow = Flow(PLAIN, 256)
    latents, noise = torch.randn(2, 2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    level = torch.tensor([0.1, 0.9])
    assert flow.loss(noise - latents, latents, noise, level, 5.0).item() == 0
    assert flow.loss(noise - latents + 2, latents, noise, level, None).item() == pytest.approx(4)


@pytest.mark.parametrize(
    ("config", "tokens", "shift"), [(PLAIN, 256, 3.0), (DYNAMIC, 256, np.exp(0.5)), (DYNAMIC, 4096, np.exp(1.15))]
)
def test_levels_are_shifted_to_the_noise(config: dict[str, float], tokens: int, shift: float) -> None:
    levels = Flow(config, tokens).draw_levels(np.random.default_rng(0), 20_000).double().numpy()
    assert ((levels > 0) & (levels < 1)).all()
    even = levels / (shift - (shift - 1) * levels)
    normal = np.log(even / (1 - even))
    assert normal.mean() == pytest.approx(0, abs=0.03)
    assert normal.std() == pytest.approx(1, abs=0.03)


def test_a_family_may_have_its_own_shift_by_steps() -> None:
    own = Flow(DYNAMIC, 1024, mu=lambda tokens, steps: tokens / 1024 + steps / 10)
    shares = own.shares(own.scheduler(10))
    assert shares[5].item() == pytest.approx(1 / (1 + np.exp(-2.0) * (1 / 0.5 - 1)), rel=1e-6)
    linear = Flow(DYNAMIC, 1024)
    assert not torch.equal(shares, linear.shares(linear.scheduler(10)))
