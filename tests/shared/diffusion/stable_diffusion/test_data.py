from __future__ import annotations

import numpy as np
import torch

from shared.diffusion.stable_diffusion.data import Draw, Latents, Texts, draw_batch


def draw(seed: int, step: int) -> Draw:
    return draw_batch(seed, step, np.full(10, 0.1), 64, (4, 2, 2), 1000, True, 0.25)


def test_a_draw_follows_from_seed_and_step() -> None:
    one, again = draw(1, 2), draw(1, 2)
    assert np.array_equal(one.rows, again.rows)
    assert torch.equal(one.noise, again.noise)
    assert torch.equal(one.timesteps, again.timesteps)
    for other in (draw(1, 3), draw(2, 2)):
        assert not np.array_equal(one.rows, other.rows)
        assert not torch.equal(one.noise, other.noise)
    assert not torch.equal(one.noise, one.posterior_noise)
    assert 0.25 < one.flipped.mean() < 0.75
    assert 0 < one.captionless.mean() < 0.5


def test_latents_and_texts_of_a_part_of_the_batch() -> None:
    shape = (2, 2, 1, 1, 1)
    latents = Latents(torch.arange(4.0).reshape(shape), torch.ones(shape))
    texts = Texts(torch.arange(3)[:, None], np.array([1, 2]))
    ones = torch.ones(3, 1, 1, 1)
    chosen = Draw(
        rows=np.array([0, 1, 1]),
        flipped=np.array([False, True, False]),
        captionless=np.array([False, False, True]),
        timesteps=torch.zeros(3),
        posterior_noise=ones,
        noise=ones,
    )
    assert latents.sample(chosen, slice(0, 3), 2.0).flatten().tolist() == [2.0, 8.0, 6.0]
    assert latents.sample(chosen, slice(1, 2), 2.0).flatten().tolist() == [8.0]
    assert texts.take(chosen, slice(0, 3)).flatten().tolist() == [1, 2, 0]
