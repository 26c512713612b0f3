from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from shared.classifier.augment import _draw_affine, _warp, apply, augment, draw_each, mixup_pairs
from shared.config.training import Augmentation

KINDS: list[Augmentation] = ["none", "basic", "soft", "hard"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", KINDS)
def test_shape_range_and_repeatability(kind: Augmentation) -> None:
    images = torch.rand(8, 3, 24, 24, generator=seeded())
    out = augment(images.clone(), kind, 0.5, seeded(1))
    assert out.shape == images.shape
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1
    assert torch.equal(out, augment(images.clone(), kind, 0.5, seeded(1)))
    assert not torch.equal(out, augment(images.clone(), kind, 0.5, seeded(2)))


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_each_image_has_parameters_of_its_own(kind: Augmentation) -> None:
    images = torch.rand(1, 3, 24, 24, generator=seeded()).expand(6, -1, -1, -1).contiguous()
    out = augment(images, kind, 0.0, seeded(1))
    assert all(not torch.equal(out[i], out[j]) for i in range(6) for j in range(i))


def test_none_changes_nothing_and_basic_mirrors_half() -> None:
    images = torch.rand(200, 3, 4, 4, generator=seeded())
    assert torch.equal(augment(images, "none", 0.0, seeded()), images)
    out = augment(images, "basic", 0.0, seeded())
    mirrored = (out == images.flip(3)).all(dim=(1, 2, 3))
    assert ((out == images).all(dim=(1, 2, 3)) ^ mirrored).all()
    assert 70 < int(mirrored.sum()) < 130


def test_a_given_flip_is_used() -> None:
    images = torch.rand(3, 3, 8, 8, generator=seeded())
    flip = torch.tensor([True, False, True])
    out = apply(images, draw_each([1, 2, 3], "basic", 0.0, flip))
    assert torch.equal(out[0], images[0].flip(2))
    assert torch.equal(out[1], images[1])


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_augmented_by_its_own_seed(kind: Augmentation) -> None:
    images, flip = torch.rand(6, 3, 24, 24, generator=seeded()), torch.arange(6) % 2 == 0
    seeds = [3, 2**127, 5, 8, 13, 21]
    every = apply(images, draw_each(seeds, kind, 0.5, flip))
    order = [4, 1, 4, 0, 2, 5]
    again = apply(images[order], draw_each([seeds[i] for i in order], kind, 0.5, flip[order]))
    assert torch.equal(again, every[order])
    if kind in ("soft", "hard"):
        other = apply(images, draw_each([seed + 1 for seed in seeds], kind, 0.5, flip))
        assert all(not torch.equal(a, b) for a, b in zip(every, other, strict=True))


def uniform(n: int) -> Callable[[], torch.Tensor]:
    generator = seeded()
    return lambda: torch.rand(n, generator=generator)


def test_moving_keeps_a_plain_image_plain_and_a_centred_dot_near_the_middle() -> None:
    grey = torch.full((5, 3, 32, 32), 0.25)
    assert torch.allclose(_warp(grey, _draw_affine(torch.zeros(5, dtype=torch.bool), uniform(5))), grey)
    dot = torch.zeros(50, 1, 33, 33)
    dot[:, :, 14:19, 14:19] = 1
    moved = _warp(dot.expand(-1, 3, -1, -1).contiguous(), _draw_affine(torch.arange(50) % 2 == 0, uniform(50)))[:, 0]
    at = torch.arange(33.0)
    row = (moved.sum(2) * at).sum(1) / moved.sum((1, 2))
    assert float((row - 16).abs().max()) < 0.1 * 33


def test_erasing_fills_a_rectangle_of_some_images() -> None:
    images = torch.zeros(300, 3, 20, 20)
    out = augment(images, "none", 0.5, seeded())
    share = (out > 0).any(dim=1).float().mean(dim=(1, 2))
    assert 100 < int((share > 0).sum()) < 200
    assert float(share.max()) < 0.35


def test_mixup_shares_are_of_the_beta_distribution() -> None:
    partner, share = mixup_pairs(4000, 0.4, seeded())
    assert sorted(partner.tolist()) == list(range(4000))
    assert float(share.min()) >= 0
    assert float(share.max()) <= 1
    assert float(share.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(share.var()) == pytest.approx(0.25 / (2 * 0.4 + 1), abs=0.02)
