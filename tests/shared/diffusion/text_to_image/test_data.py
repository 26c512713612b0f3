from __future__ import annotations

import numpy as np
import torch

from shared.diffusion.text_to_image.data import Draw, Latents, Texts, draw_batch


def levels(random: np.random.Generator, size: int) -> torch.Tensor:
    return torch.from_numpy(random.integers(0, 1000, size))


def draw(seed: int, step: int) -> Draw:
    return draw_batch(seed, step, np.full(10, 0.1), 64, (4, 2, 2), levels, True, 0.25)


def test_a_draw_follows_from_seed_and_step() -> None:
    one, again = draw(1, 2), draw(1, 2)
    assert np.array_equal(one.rows, again.rows)
    assert torch.equal(one.noise, again.noise)
    assert torch.equal(one.levels, again.levels)
    for other in (draw(1, 3), draw(2, 2)):
        assert not np.array_equal(one.rows, other.rows)
        assert not torch.equal(one.noise, other.noise)
    assert not torch.equal(one.noise, one.posterior_noise)
    assert 0.25 < one.flipped.mean() < 0.75
    assert 0 < one.captionless.mean() < 0.5


def test_latents_and_texts_of_a_part_of_the_batch() -> None:
    shape = (2, 2, 1, 1, 1)
    latents = Latents(torch.arange(4.0).reshape(shape), torch.ones(shape))
    texts = Texts([{"tokens": torch.tensor([i])} for i in range(3)], np.array([1, 2]))
    ones = torch.ones(3, 1, 1, 1)
    chosen = Draw(
        rows=np.array([0, 1, 1]),
        flipped=np.array([False, True, False]),
        captionless=np.array([False, False, True]),
        levels=torch.zeros(3),
        posterior_noise=ones,
        noise=ones,
    )
    assert latents.sample(chosen, slice(0, 3)).flatten().tolist() == [1.0, 4.0, 3.0]
    assert latents.sample(chosen, slice(1, 2)).flatten().tolist() == [4.0]
    taken = texts.take(chosen, slice(0, 3), torch.device("cpu"))
    assert [condition["tokens"].tolist() for condition in taken] == [[1], [2], [0]]
