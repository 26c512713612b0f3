"""Provides what the training reads at each step: cached latents and texts, and random choices that follow from seed and step alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

from shared.data.imageset import ImageSet, decode
from shared.diffusion.stable_diffusion.processes import Rank
from shared.log import Log
from shared.tensors import save_tensors

ENCODE_IMAGES = 4  # per batch: the VAE needs about 1 GB per image of 512 x 512 pixels in float32
ENCODE_TEXTS = 64  # per batch
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
    timesteps: torch.Tensor
    """Holds the timestep of each image, `[b]`."""
    posterior_noise: torch.Tensor
    """Holds the noise that samples latents from the VAE's distribution, `[b, 4, h, w]`."""
    noise: torch.Tensor
    """Holds the noise that is added to the latents, `[b, 4, h, w]`."""


def draw_batch(
    seed: int,
    step: int,
    probabilities: NDArray[np.float64],
    size: int,
    latent_shape: Sequence[int],
    levels: int,
    flip: bool,
    dropout: float,
) -> Draw:
    """Returns the random choices of optimizer step `step`: a function of seed and step, equal in every process and after every restart.

    `probabilities` `[n]` are those of the images, which are drawn with replacement; `levels` is the length of the noise schedule.
    """
    random = np.random.default_rng([seed, step])
    rows = random.choice(len(probabilities), size, p=probabilities)
    flipped = (random.random(size) < 0.5) & flip
    captionless = random.random(size) < dropout
    timesteps = torch.from_numpy(random.integers(0, levels, size))
    generator = torch.Generator().manual_seed(int(random.integers(2**63)))
    shape = (2, size, *latent_shape)
    posterior_noise, noise = torch.randn(shape, generator=generator)
    return Draw(rows, flipped, captionless, timesteps, posterior_noise, noise)


@dataclass(frozen=True)
class Latents:
    """Holds the VAE's normal distributions of the latents of n images, and of their mirror images."""

    mean: torch.Tensor
    """Holds the means `[n, 2, 4, h, w]` of each image and its mirror image; `[n, 1, 4, h, w]` if images are not mirrored."""
    deviation: torch.Tensor
    """Holds the standard deviations, in the shape of `mean`."""

    def sample(self, draw: Draw, part: slice, factor: float) -> torch.Tensor:
        """Returns latents `[p, 4, h, w]` of a part of the batch, scaled to unit variance by the VAE's factor."""
        rows = torch.from_numpy(draw.rows[part])
        side = torch.from_numpy(draw.flipped[part].astype(np.int64))
        mean, deviation = self.mean[rows, side].float(), self.deviation[rows, side].float()
        return (mean + deviation * draw.posterior_noise[part]) * factor


def cache_latents(
    images: ImageSet,
    vae: AutoencoderKL,
    resolution: int,
    flip: bool,
    kept: torch.dtype,
    folder: Path,
    rank: Rank,
    check: Callable[[], None],
) -> Latents:
    """Encodes this process's share of the images into `folder`, waits for the shares of the others, and returns all.

    The VAE computes in float32, as float16 overflows in some; `kept` is the type of the result. `check` is called between batches and
    while waiting, and raises to end the work.
    """
    rows = np.array_split(np.arange(len(images)), rank.count)[rank.number]
    starts = range(0, len(rows), ENCODE_IMAGES)
    means, deviations = [], []
    for start in log.progress(starts, "encoding images", len(starts), "batches"):
        check()
        mean, deviation = _encode(images, rows[start : start + ENCODE_IMAGES], vae, resolution, flip)
        means.append(mean.to(kept))
        deviations.append(deviation.to(kept))
    sides = 2 if flip else 1
    side = resolution // 2 ** (len(vae.config.block_out_channels) - 1)
    empty = [torch.empty(0, sides, vae.config.latent_channels, side, side, dtype=kept)]
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
def _encode(
    images: ImageSet, rows: NDArray[np.int64], vae: AutoencoderKL, resolution: int, flip: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns mean and standard deviation `[b, 1 or 2, 4, h, w]` of the latents, on the CPU."""
    pixels = np.stack([decode(images.encoded[i], resolution, images.paths[i]) for i in rows])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(vae.device).float() / 127.5 - 1
    views = [batch, batch.flip(-1)] if flip else [batch]
    found = [vae.encode(view).latent_dist for view in views]
    return torch.stack([d.mean for d in found], 1).cpu(), torch.stack([d.std for d in found], 1).cpu()


def tokens(captions: Sequence[str], tokenizer: CLIPTokenizer) -> torch.Tensor:
    """Returns token numbers `[n, t]`, padded or truncated to the length that the text encoder reads."""
    found: torch.Tensor = tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return found


@torch.no_grad()
def embed(numbers: torch.Tensor, text_encoder: CLIPTextModel) -> Iterator[torch.Tensor]:
    """Yields the embeddings `[b, t, d]` of token numbers `[n, t]`, batch by batch, on the text encoder's device."""
    for batch in torch.split(numbers, ENCODE_TEXTS):
        yield text_encoder(batch.to(text_encoder.device)).last_hidden_state


@dataclass(frozen=True)
class Texts:
    """Holds each distinct caption once, the empty one first: as token numbers if the text encoder is trained, and else as embeddings."""

    values: torch.Tensor
    """Holds token numbers `[u, t]`, int64, or embeddings `[u, t, d]`."""
    of_image: NDArray[np.int64]
    """Holds the row of each image's caption, `[n]`."""

    @classmethod
    def build(
        cls, captions: Sequence[str], tokenizer: CLIPTokenizer, frozen: CLIPTextModel | None, kept: torch.dtype
    ) -> Texts:
        """Builds the texts. `frozen` is the text encoder if it is not trained; its embeddings have the type `kept`."""
        position = {caption: i for i, caption in enumerate(dict.fromkeys(["", *captions]))}
        values = tokens(list(position), tokenizer)
        if frozen is not None:
            values = torch.cat([batch.to("cpu", kept) for batch in embed(values, frozen)])
        return cls(values, np.array([position[caption] for caption in captions], np.int64))

    def take(self, draw: Draw, part: slice) -> torch.Tensor:
        """Returns the texts of a part of the batch, `[p, t]` or `[p, t, d]`."""
        chosen = np.where(draw.captionless[part], 0, self.of_image[draw.rows[part]])
        found = self.values[torch.from_numpy(chosen)]
        return found.float() if found.is_floating_point() else found
