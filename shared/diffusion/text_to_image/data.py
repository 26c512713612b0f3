"""Provides what the training reads at each step: cached latents and texts, and random choices that follow from seed and step alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from shared.data.imageset import ImageSet, decode
from shared.diffusion.text_to_image.autoencoder import Autoencoder
from shared.diffusion.text_to_image.families.family import Condition
from shared.diffusion.text_to_image.processes import Rank
from shared.log import Log
from shared.tensors import save_tensors

ENCODE_IMAGES = 4  # per batch: the VAE needs about 1 GB per image of 512 x 512 pixels in float32
POLL_SECONDS = 0.05

log = Log("finetune")


@dataclass(frozen=True)
class Draw:
    """Holds the random choices of one batch of b images."""

    rows: NDArray[np.int64]
    """Holds the rows of the images, `[b]`."""
    flipped: NDArray[np.bool_]
    """Tells whether each image is mirrored, `[b]`."""
    captionless: NDArray[np.bool_]
    """Tells whether each caption is left out, for classifier-free guidance, `[b]`."""
    levels: torch.Tensor
    """Holds the level of noise of each image, `[b]`."""
    posterior_noise: torch.Tensor
    """Holds the noise that samples latents from the VAE's distribution, `[b, c, h, w]`."""
    noise: torch.Tensor
    """Holds the noise that is added to the latents, `[b, c, h, w]`."""


def draw_batch(
    seed: int,
    step: int,
    probabilities: NDArray[np.float64],
    size: int,
    latent_shape: Sequence[int],
    draw_levels: Callable[[np.random.Generator, int], torch.Tensor],
    flip: bool,
    dropout: float,
) -> Draw:
    """Returns the random choices of optimizer step `step`: a function of seed and step, equal in every process and after every restart.

    `probabilities` `[n]` are those of the images, which are drawn with replacement; `draw_levels` is that of the noise process.
    """
    random = np.random.default_rng([seed, step])
    rows = random.choice(len(probabilities), size, p=probabilities)
    flipped = (random.random(size) < 0.5) & flip
    captionless = random.random(size) < dropout
    levels = draw_levels(random, size)
    generator = torch.Generator().manual_seed(int(random.integers(2**63)))
    shape = (2, size, *latent_shape)
    posterior_noise, noise = torch.randn(shape, generator=generator)
    return Draw(rows, flipped, captionless, levels, posterior_noise, noise)


@dataclass(frozen=True)
class Latents:
    """Holds the VAE's normal distributions of the latents of n images, and of their mirror images."""

    mean: torch.Tensor
    """Holds the means `[n, 2, c, h, w]` of each image and its mirror image; `[n, 1, c, h, w]` if images are not mirrored."""
    deviation: torch.Tensor
    """Holds the standard deviations, in the shape of `mean`."""

    def sample(self, draw: Draw, part: slice) -> torch.Tensor:
        """Returns latents `[p, c, h, w]` of a part of the batch."""
        rows = torch.from_numpy(draw.rows[part])
        side = torch.from_numpy(draw.flipped[part].astype(np.int64))
        mean, deviation = self.mean[rows, side].float(), self.deviation[rows, side].float()
        return mean + deviation * draw.posterior_noise[part]


@dataclass(frozen=True)
class Encoding:
    """Says how images become latents."""

    autoencoder: Autoencoder
    """Computes in float32, as float16 overflows in some."""
    shape: Sequence[int]
    """Gives the shape `[c, h, w]` of the VAE's latents."""
    resolution: int
    """Gives the side of the images in pixels."""
    flip: bool
    """Says whether mirror images are encoded too."""
    kept: torch.dtype
    """Gives the type of the result."""


def cache_latents(images: ImageSet, encoding: Encoding, folder: Path, rank: Rank, check: Callable[[], None]) -> Latents:
    """Encodes this process's share of the images into `folder`, waits for the shares of the others, and returns all.

    `check` is called between batches and while waiting, and raises to end the work.
    """
    rows = np.array_split(np.arange(len(images)), rank.count)[rank.number]
    starts = range(0, len(rows), ENCODE_IMAGES)
    means, deviations = [], []
    for start in log.progress(starts, "encoding images", len(starts), "batches"):
        check()
        mean, deviation = _encode(images, rows[start : start + ENCODE_IMAGES], encoding)
        means.append(mean.to(encoding.kept))
        deviations.append(deviation.to(encoding.kept))
    empty = [torch.empty(0, 2 if encoding.flip else 1, *encoding.shape, dtype=encoding.kept)]
    whole, partial = folder / f"latents-{rank.number}.safetensors", folder / f"latents-{rank.number}.partial"
    save_tensors({"mean": torch.cat(means or empty), "deviation": torch.cat(deviations or empty)}, partial)
    partial.rename(whole)
    shards = []
    for other in range(rank.count):
        path = folder / f"latents-{other}.safetensors"
        while not path.exists():
            check()
            time.sleep(POLL_SECONDS)
        shards.append(load_file(path))
    return Latents(torch.cat([s["mean"] for s in shards]), torch.cat([s["deviation"] for s in shards]))


@torch.no_grad()
def _encode(images: ImageSet, rows: NDArray[np.int64], encoding: Encoding) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns mean and standard deviation `[b, 1 or 2, c, h, w]` of the latents, on the CPU."""
    autoencoder = encoding.autoencoder
    pixels = np.stack([decode(images.encoded[i], encoding.resolution, images.paths[i]) for i in rows])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(autoencoder.vae.device).float() / 127.5 - 1
    views = [batch, batch.flip(-1)] if encoding.flip else [batch]
    means, deviations = zip(*(autoencoder.encode(view) for view in views), strict=True)
    return torch.stack(means, 1).cpu(), torch.stack(deviations, 1).cpu()


@dataclass(frozen=True)
class Texts:
    """Holds the condition of each distinct caption once, the empty one first: token numbers if the text encoder is trained, and else embeddings."""

    conditions: Sequence[Condition]
    of_image: NDArray[np.int64]
    """Holds the position of each image's caption in `conditions`, `[n]`."""

    @classmethod
    @torch.no_grad()
    def build(
        cls, captions: Sequence[str], encode: Callable[[list[str]], list[Condition]], batch: int, kept: torch.dtype
    ) -> Texts:
        """Encodes the captions, `batch` at a time. Embeddings are kept on the CPU and have the type `kept`."""
        distinct = list(dict.fromkeys(["", *captions]))
        position = {caption: i for i, caption in enumerate(distinct)}
        found: list[Condition] = []
        for start in range(0, len(distinct), batch):
            for condition in encode(distinct[start : start + batch]):
                found.append({name: _cast(value, kept).cpu().clone() for name, value in condition.items()})
        return cls(found, np.array([position[caption] for caption in captions], np.int64))

    def take(self, draw: Draw, part: slice, device: torch.device) -> list[Condition]:
        """Returns the conditions of a part of the batch on a device, embeddings in float32."""
        chosen = np.where(draw.captionless[part], 0, self.of_image[draw.rows[part]])
        return [
            {name: _cast(value.to(device), torch.float32) for name, value in self.conditions[i].items()} for i in chosen
        ]


def _cast(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Returns a tensor in the type `dtype`; whole numbers stay as they are."""
    return value.to(dtype) if value.is_floating_point() else value
