"""Augments batches of tensors as the paper does (Table 2).

Each image of a batch has random parameters of its own, which are drawn on the CPU and applied on any device. torchvision v2 draws one
set of parameters per call, so this module uses batched tensor operations instead. The paper names the steps but not their strengths;
those below are common choices for photographs of clothes. `Trunk.normalised` normalises the images. Drawing and applying are separate
steps, so that one image of a batch can be augmented again with the same parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as tv

from shared.config.training import Augmentation

FLIP = 0.5  # probability (paper)
ZOOM = 1.25  # greatest magnification of the centre crop
DEGREES, SHIFT, SCALE, SHEAR = 10.0, 0.08, 0.1, 5.0  # random affine: degrees, share of the side, share, degrees
BRIGHTNESS, SATURATION, HUE, CONTRAST = 0.2, 0.2, 0.05, 0.2  # colour jitter: relative strengths; the hue in turns
HARD = 0.5  # probability of sharpening, and of additional contrast
SHARPNESS, HARD_CONTRAST = 2.0, 1.5  # factors as in torchvision: 1 changes nothing
ERASED_AREA, ERASED_ASPECT = (0.02, 0.2), (0.3, 3.3)  # random erasing (Zhong et al. 2017)
NUMBERS = 20  # random numbers per image, at most
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


Uniform = Callable[[], Tensor]
"""Returns random numbers in 0 to 1, one per image, `[n]`."""


@dataclass(frozen=True)
class AugmentationParameters:
    """Holds the random parameters of an augmentation, one row per image; None for a step that the augmentation does not have."""

    flip: Tensor | None = None
    """Says whether an image is mirrored, bool `[n]`."""
    affine: Tensor | None = None
    """Holds the matrix of mirror, zoom and affine, `[n, 2, 3]`."""
    colour: Tensor | None = None
    """Holds the matrix of brightness, saturation and hue, `[n, 3, 3]`."""
    contrast: Tensor | None = None
    """Gives the contrast factor of the colour jitter, `[n]`."""
    sharpened: Tensor | None = None
    """Says whether an image is sharpened, bool `[n]`."""
    harder: Tensor | None = None
    """Gives the factor of the additional contrast, `[n]`."""
    erased: Tensor | None = None
    """Describes the random erasing, `[n, 8]`: whether, area, aspect, vertical and horizontal place, RGB; all in 0 to 1 except the aspect."""


def draw(n: int, kind: Augmentation, erasing: float, generator: Generator) -> AugmentationParameters:
    """Draws the parameters for n images.

    `erasing` is the probability that a random rectangle is filled with one colour. With the augmentation `none`, erasing is the only
    change.
    """
    return _draw(lambda: torch.rand(n, generator=generator), kind, erasing)


def draw_each(seeds: Sequence[int], kind: Augmentation, erasing: float, flip: Tensor) -> AugmentationParameters:
    """Draws the parameters of each image from its own 128-bit seed; `flip` (bool `[n]`) says which images are mirrored."""
    numbers = np.stack(
        [np.random.Generator(np.random.Philox(key=seed)).random(NUMBERS, np.float32) for seed in seeds], 1
    )
    columns = iter(torch.from_numpy(numbers))
    return _draw(lambda: next(columns), kind, erasing, flip)


def _draw(uniform: Uniform, kind: Augmentation, erasing: float, flip: Tensor | None = None) -> AugmentationParameters:
    flipped = affine = colour = contrast = sharpened = harder = None
    if kind != "none":
        flipped = uniform() < FLIP if flip is None else flip
    if flipped is not None and kind in ("soft", "hard"):
        affine = _draw_affine(flipped, uniform)
        colour, contrast = _draw_jitter(uniform)
    if kind == "hard":
        sharpened = _bernoulli(HARD, uniform).bool()
        harder = 1.0 + (HARD_CONTRAST - 1.0) * _bernoulli(HARD, uniform)
    erased = _draw_erasing(erasing, uniform) if erasing > 0 else None
    return AugmentationParameters(flipped, affine, colour, contrast, sharpened, harder, erased)


def apply(images: Tensor, drawn: AugmentationParameters) -> Tensor:
    """Returns float images `[n, 3, r, r]` in 0 to 1, augmented."""
    if drawn.affine is not None:
        images = _warp(images, drawn.affine)
    elif drawn.flip is not None:
        images = torch.where(drawn.flip.to(images.device).view(-1, 1, 1, 1), tv.horizontal_flip(images), images)
    if drawn.colour is not None and drawn.contrast is not None:
        images = _contrast(_recolour(images, drawn.colour), drawn.contrast)
    if drawn.sharpened is not None:
        sharper = tv.adjust_sharpness(images, SHARPNESS)
        images = torch.where(drawn.sharpened.to(images.device).view(-1, 1, 1, 1), sharper, images)
    if drawn.harder is not None:
        images = _contrast(images, drawn.harder)
    return images if drawn.erased is None else _erase(images, drawn.erased)


def augment(images: Tensor, kind: Augmentation, erasing: float, generator: Generator) -> Tensor:
    """Draws parameters for a batch of images and applies them."""
    return apply(images, draw(len(images), kind, erasing, generator))


def mixup_pairs(n: int, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draws a mixup (Zhang et al. 2018): a partner for each of n inputs, int64 `[n]`, and the input's own share, float `[n]`.

    The shares are distributed as Beta(alpha, alpha).
    """
    partner = torch.randperm(n, generator=generator)
    concentration = torch.full((n,), alpha)
    a = torch._standard_gamma(concentration, generator=generator)
    b = torch._standard_gamma(concentration, generator=generator)
    return partner, torch.where(a + b > 0, a / (a + b).clamp_min(1e-30), torch.ones(n))


def _between(low: float, high: float, uniform: Uniform) -> Tensor:
    return uniform() * (high - low) + low


def _bernoulli(probability: float, uniform: Uniform) -> Tensor:
    return (uniform() < probability).float()


def _draw_affine(flipped: Tensor, uniform: Uniform) -> Tensor:
    angle = torch.deg2rad(_between(-DEGREES, DEGREES, uniform))
    shear = torch.tan(torch.deg2rad(_between(-SHEAR, SHEAR, uniform)))
    zoom = _between(1.0, ZOOM, uniform) * _between(1.0 - SCALE, 1.0 + SCALE, uniform)
    across, down = (_between(-2 * SHIFT, 2 * SHIFT, uniform) for _ in range(2))  # grid coordinates span 2
    mirror = 1.0 - 2.0 * flipped.float()
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    rows = [
        torch.stack([mirror * cos, mirror * (shear * cos - sin), across], 1),
        torch.stack([sin, shear * sin + cos, down], 1),
    ]
    return torch.stack(rows, 1)


def _draw_jitter(uniform: Uniform) -> tuple[Tensor, Tensor]:
    """Draws brightness, saturation and hue as one colour matrix per image (the hue rotates the chroma plane of YIQ), and the contrast."""
    brightness = _between(1 - BRIGHTNESS, 1 + BRIGHTNESS, uniform)
    saturation = _between(1 - SATURATION, 1 + SATURATION, uniform)
    turn = _between(-HUE, HUE, uniform) * 2 * torch.pi
    contrast = _between(1 - CONTRAST, 1 + CONTRAST, uniform)
    chroma = torch.zeros(len(turn), 3, 3)
    chroma[:, 0, 0] = 1.0
    chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * torch.cos(turn)
    chroma[:, 1, 2], chroma[:, 2, 1] = -saturation * torch.sin(turn), saturation * torch.sin(turn)
    to_yiq = torch.tensor(_TO_YIQ)
    return (torch.linalg.inv(to_yiq) @ chroma @ to_yiq) * brightness.view(-1, 1, 1), contrast


def _draw_erasing(probability: float, uniform: Uniform) -> Tensor:
    chosen = _bernoulli(probability, uniform)
    area = _between(*ERASED_AREA, uniform)
    aspect = torch.exp(_between(math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1]), uniform))
    return torch.stack([chosen, area, aspect, *(uniform() for _ in range(5))], 1)


def _warp(images: Tensor, affine: Tensor) -> Tensor:
    """Applies mirror, zoom and affine in one resampling; beyond the image it repeats the border, which is mostly plain background."""
    grid = F.affine_grid(affine.to(images.device, images.dtype), list(images.shape), align_corners=False)
    moved: Tensor = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return moved


def _recolour(images: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("nij,njhw->nihw", matrix.to(images.device, images.dtype), images).clamp(0, 1)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blends each image with its mean grey by its factor, `[n]`."""
    mean = tv.rgb_to_grayscale(images).mean(dim=(1, 2, 3), keepdim=True)
    blended: Tensor = mean + (images - mean) * factor.to(images.device, images.dtype).view(-1, 1, 1, 1)
    return blended.clamp(0, 1)


def _erase(images: Tensor, erased: Tensor) -> Tensor:
    height, width = images.shape[2:]
    chosen, area, aspect, down, across = erased[:, :5].unbind(1)
    high, wide = (area * aspect).sqrt().clamp(max=1.0) * height, (area / aspect).sqrt().clamp(max=1.0) * width
    top, left = down * (height - high), across * (width - wide)
    rows, columns = torch.arange(height).view(1, -1) + 0.5, torch.arange(width).view(1, -1) + 0.5
    in_rows = (rows >= top.view(-1, 1)) & (rows < (top + high).view(-1, 1)) & chosen.bool().view(-1, 1)
    in_columns = (columns >= left.view(-1, 1)) & (columns < (left + wide).view(-1, 1))
    inside = (in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1).to(images.device)
    colour = erased[:, 5:].to(images.device, images.dtype).view(-1, 3, 1, 1)
    return torch.where(inside, colour, images)
