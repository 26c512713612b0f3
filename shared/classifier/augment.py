"""The paper's Table 2 on tensors: each image of a batch has random parameters of its own, drawn on the CPU, applied on any device.

The paper names the steps, not their strengths; those below are torchvision's usual ones for photographs of clothes. torchvision v2
draws one set of parameters a call, so what varies between the images of a batch is written here with batched tensor operations;
normalisation is the network's (`Trunk.normalised`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as tv

from shared.config.training import Augmentation

FLIP = 0.5  # probability (paper)
ZOOM = 1.25  # greatest magnification of the centre crop
DEGREES, SHIFT, SCALE, SHEAR = 10.0, 0.08, 0.1, 5.0  # of the random affine: degrees, share of the side, share, degrees
BRIGHTNESS, SATURATION, HUE, CONTRAST = 0.2, 0.2, 0.05, 0.2  # of the colour jitter: relative; hue in turns
HARD = 0.5  # probability of sharpening, and of more contrast
SHARPNESS, HARD_CONTRAST = 2.0, 1.5  # factors, as torchvision counts them: 1 changes nothing
ERASED_AREA, ERASED_ASPECT = (0.02, 0.2), (0.3, 3.3)  # of random erasing (Zhong et al. 2017)
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def augment(
    images: Tensor, kind: Augmentation, erasing: float, generator: Generator, flip: Tensor | None = None
) -> Tensor:
    """Float images `[n, 3, r, r]` in 0 to 1 → the same, augmented.

    `erasing` is the probability that a random rectangle is filled with noise. `flip` (bool `[n]`) says which images are mirrored,
    in place of a draw. `none` returns the images unchanged but for erasing.
    """
    if kind != "none":
        drawn = torch.rand(len(images), generator=generator) < FLIP
        flipped = (drawn if flip is None else flip).to(images.device)
        if kind == "basic":
            images = torch.where(flipped.view(-1, 1, 1, 1), tv.horizontal_flip(images), images)
        else:
            images = _move(images, flipped, generator)
            images = _jitter(images, generator)
        if kind == "hard":
            images = _sharpen(images, generator)
            images = _contrast(images, 1.0 + (HARD_CONTRAST - 1.0) * _chosen(len(images), HARD, generator))
    return _erase(images, erasing, generator) if erasing > 0 else images


def mixup_pairs(n: int, alpha: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """For mixup (Zhang et al. 2018): a partner for each of n inputs, int64 `[n]`, and the input's own share, float `[n]`, Beta(alpha, alpha)."""
    partner = torch.randperm(n, generator=generator)
    concentration = torch.full((n,), alpha)
    a = torch._standard_gamma(concentration, generator=generator)
    b = torch._standard_gamma(concentration, generator=generator)
    return partner, torch.where(a + b > 0, a / (a + b).clamp_min(1e-30), torch.ones(n))


def _uniform(n: int, low: float, high: float, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _chosen(n: int, probability: float, generator: Generator) -> Tensor:
    return (torch.rand(n, generator=generator) < probability).float()


def _move(images: Tensor, flipped: Tensor, generator: Generator) -> Tensor:
    """Mirror, zoom and affine in one resampling; what comes in from outside repeats the border, mostly plain background."""
    n = len(images)
    angle = torch.deg2rad(_uniform(n, -DEGREES, DEGREES, generator))
    shear = torch.tan(torch.deg2rad(_uniform(n, -SHEAR, SHEAR, generator)))
    zoom = _uniform(n, 1.0, ZOOM, generator) * _uniform(n, 1.0 - SCALE, 1.0 + SCALE, generator)
    shift = _uniform(2 * n, -2 * SHIFT, 2 * SHIFT, generator).view(n, 2)  # grid coordinates span 2
    mirror = 1.0 - 2.0 * flipped.cpu().float()
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    rows = [
        torch.stack([mirror * cos, mirror * (shear * cos - sin), shift[:, 0]], 1),
        torch.stack([sin, shear * sin + cos, shift[:, 1]], 1),
    ]
    theta = torch.stack(rows, 1).to(images.device, images.dtype)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved: Tensor = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return moved


def _jitter(images: Tensor, generator: Generator) -> Tensor:
    """Brightness, saturation and hue as one colour matrix an image (hue turns the chroma plane of YIQ), then contrast."""
    n = len(images)
    brightness = _uniform(n, 1 - BRIGHTNESS, 1 + BRIGHTNESS, generator)
    saturation = _uniform(n, 1 - SATURATION, 1 + SATURATION, generator)
    turn = _uniform(n, -HUE, HUE, generator) * 2 * torch.pi
    contrast = _uniform(n, 1 - CONTRAST, 1 + CONTRAST, generator)
    chroma = torch.zeros(n, 3, 3)
    chroma[:, 0, 0] = 1.0
    chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * torch.cos(turn)
    chroma[:, 1, 2], chroma[:, 2, 1] = -saturation * torch.sin(turn), saturation * torch.sin(turn)
    to_yiq = torch.tensor(_TO_YIQ)
    matrix = (torch.linalg.inv(to_yiq) @ chroma @ to_yiq) * brightness.view(n, 1, 1)
    coloured = torch.einsum("nij,njhw->nihw", matrix.to(images.device, images.dtype), images).clamp(0, 1)
    return _contrast(coloured, contrast)


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blends each image with its mean grey; a factor an image `[n]`."""
    mean = tv.rgb_to_grayscale(images).mean(dim=(1, 2, 3), keepdim=True)
    blended: Tensor = mean + (images - mean) * factor.to(images.device, images.dtype).view(-1, 1, 1, 1)
    return blended.clamp(0, 1)


def _sharpen(images: Tensor, generator: Generator) -> Tensor:
    chosen = _chosen(len(images), HARD, generator).bool().to(images.device)
    return torch.where(chosen.view(-1, 1, 1, 1), tv.adjust_sharpness(images, SHARPNESS), images)


def _erase(images: Tensor, probability: float, generator: Generator) -> Tensor:
    n, _, height, width = images.shape
    chosen = torch.rand(n, generator=generator) < probability
    area = _uniform(n, *ERASED_AREA, generator)
    aspect = torch.exp(_uniform(n, math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1]), generator))
    high, wide = (area * aspect).sqrt().clamp(max=1.0) * height, (area / aspect).sqrt().clamp(max=1.0) * width
    top, left = (
        torch.rand(n, generator=generator) * (height - high),
        torch.rand(n, generator=generator) * (width - wide),
    )
    rows, columns = torch.arange(height).view(1, -1) + 0.5, torch.arange(width).view(1, -1) + 0.5
    in_rows = (rows >= top.view(-1, 1)) & (rows < (top + high).view(-1, 1)) & chosen.view(-1, 1)
    in_columns = (columns >= left.view(-1, 1)) & (columns < (left + wide).view(-1, 1))
    inside = (in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1).to(images.device)
    noise = torch.rand(n, 3, 1, 1, generator=generator).to(images.device, images.dtype)  # one colour an image
    return torch.where(inside, noise, images)
