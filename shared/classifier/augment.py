"""The paper's augmentations (Table 2) on batches of tensors.

Each image of a batch has random parameters of its own, which are drawn on the CPU and applied on any device. torchvision v2 draws one
set of parameters per call, so this module uses batched tensor operations instead. The paper names the steps but not their strengths;
those below are common choices for photographs of clothes. `Trunk.normalised` normalises the images. Drawing and applying are two steps,
so that one image of a batch can be augmented again with the same parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

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
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class AugmentationParameters:
    """The random parameters of an augmentation, one row per image; None for a step that the augmentation does not have."""

    flip: Tensor | None = None
    """Whether an image is mirrored, bool `[n]`."""
    affine: Tensor | None = None
    """The matrix of mirror, zoom and affine, `[n, 2, 3]`."""
    colour: Tensor | None = None
    """The matrix of brightness, saturation and hue, `[n, 3, 3]`."""
    contrast: Tensor | None = None
    """The contrast factor of the colour jitter, `[n]`."""
    sharpened: Tensor | None = None
    """Whether an image is sharpened, bool `[n]`."""
    harder: Tensor | None = None
    """The factor of the additional contrast, `[n]`."""
    erased: Tensor | None = None
    """Random erasing, `[n, 8]`: whether, area, aspect, vertical and horizontal place, RGB; all in 0 to 1 except the aspect."""

    def take(self, rows: Tensor) -> AugmentationParameters:
        """Returns the parameters of these images."""
        return AugmentationParameters(*(None if value is None else value[rows] for value in self._values()))

    @classmethod
    def concatenated(cls, parts: list[AugmentationParameters]) -> AugmentationParameters:
        """Concatenates the parameters of several batches of one augmentation."""
        columns = zip(*(part._values() for part in parts), strict=True)
        return cls(*(None if column[0] is None else torch.cat(column) for column in columns))

    def _values(self) -> list[Tensor | None]:
        return [getattr(self, field.name) for field in fields(self)]


def draw(
    n: int, kind: Augmentation, erasing: float, generator: Generator, flip: Tensor | None = None
) -> AugmentationParameters:
    """Draws the parameters for n images.

    `erasing` is the probability that a random rectangle is filled with one colour. `flip` (bool `[n]`) says which images are mirrored,
    instead of a random choice. The augmentation `none` changes nothing but what erasing does.
    """
    flipped = affine = colour = contrast = sharpened = harder = None
    if kind != "none":
        drawn = torch.rand(n, generator=generator) < FLIP
        flipped = drawn if flip is None else flip
    if flipped is not None and kind in ("soft", "hard"):
        affine = _draw_affine(flipped, generator)
        colour, contrast = _draw_jitter(n, generator)
    if kind == "hard":
        sharpened = _bernoulli(n, HARD, generator).bool()
        harder = 1.0 + (HARD_CONTRAST - 1.0) * _bernoulli(n, HARD, generator)
    erased = _draw_erasing(n, erasing, generator) if erasing > 0 else None
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
    """Draws for mixup (Zhang et al. 2018): a partner for each of n inputs, int64 `[n]`, and the input's own share, float `[n]`.

    The shares are distributed as Beta(alpha, alpha).
    """
    partner = torch.randperm(n, generator=generator)
    concentration = torch.full((n,), alpha)
    a = torch._standard_gamma(concentration, generator=generator)
    b = torch._standard_gamma(concentration, generator=generator)
    return partner, torch.where(a + b > 0, a / (a + b).clamp_min(1e-30), torch.ones(n))


def _uniform(n: int, low: float, high: float, generator: Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _bernoulli(n: int, probability: float, generator: Generator) -> Tensor:
    return (torch.rand(n, generator=generator) < probability).float()


def _draw_affine(flipped: Tensor, generator: Generator) -> Tensor:
    n = len(flipped)
    angle = torch.deg2rad(_uniform(n, -DEGREES, DEGREES, generator))
    shear = torch.tan(torch.deg2rad(_uniform(n, -SHEAR, SHEAR, generator)))
    zoom = _uniform(n, 1.0, ZOOM, generator) * _uniform(n, 1.0 - SCALE, 1.0 + SCALE, generator)
    shift = _uniform(2 * n, -2 * SHIFT, 2 * SHIFT, generator).view(n, 2)  # grid coordinates span 2
    mirror = 1.0 - 2.0 * flipped.float()
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    rows = [
        torch.stack([mirror * cos, mirror * (shear * cos - sin), shift[:, 0]], 1),
        torch.stack([sin, shear * sin + cos, shift[:, 1]], 1),
    ]
    return torch.stack(rows, 1)


def _draw_jitter(n: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Draws brightness, saturation and hue as one colour matrix per image (the hue rotates the chroma plane of YIQ), and the contrast."""
    brightness = _uniform(n, 1 - BRIGHTNESS, 1 + BRIGHTNESS, generator)
    saturation = _uniform(n, 1 - SATURATION, 1 + SATURATION, generator)
    turn = _uniform(n, -HUE, HUE, generator) * 2 * torch.pi
    contrast = _uniform(n, 1 - CONTRAST, 1 + CONTRAST, generator)
    chroma = torch.zeros(n, 3, 3)
    chroma[:, 0, 0] = 1.0
    chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * torch.cos(turn)
    chroma[:, 1, 2], chroma[:, 2, 1] = -saturation * torch.sin(turn), saturation * torch.sin(turn)
    to_yiq = torch.tensor(_TO_YIQ)
    return (torch.linalg.inv(to_yiq) @ chroma @ to_yiq) * brightness.view(n, 1, 1), contrast


def _draw_erasing(n: int, probability: float, generator: Generator) -> Tensor:
    chosen = _bernoulli(n, probability, generator)
    area = _uniform(n, *ERASED_AREA, generator)
    aspect = torch.exp(_uniform(n, math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1]), generator))
    down, across = torch.rand(n, generator=generator), torch.rand(n, generator=generator)
    return torch.cat([torch.stack([chosen, area, aspect, down, across], 1), torch.rand(n, 3, generator=generator)], 1)


def _warp(images: Tensor, affine: Tensor) -> Tensor:
    """Applies mirror, zoom and affine in one resampling; beyond the image its border is repeated, which is mostly plain background."""
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
