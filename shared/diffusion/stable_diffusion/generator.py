"""Draws images with a fine-tuned Stable Diffusion: DPM-Solver++, classifier-free guidance, and image-to-image."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from numpy.typing import NDArray

from shared.data.schema import Labels, LabelSchema
from shared.diffusion.generator import BaseSource, Generator, SampleRequest
from shared.diffusion.stable_diffusion.base import Parts, find_base, load_parts
from shared.diffusion.stable_diffusion.base_files import FILES
from shared.diffusion.stable_diffusion.caption import Captioner
from shared.diffusion.stable_diffusion.data import embed, tokens
from shared.diffusion.stable_diffusion.model import load_trained, weights_from_base
from shared.errors import DataError, InputError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class StableDiffusion(Generator):
    """Draws with a Stable Diffusion on one device, conditioned on captions."""

    def __init__(
        self, parts: Parts, caption: Captioner, resolution: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.resolution = resolution
        self._parts, self._caption, self._device, self._dtype = parts, caption, device, dtype
        self._texts: dict[str, torch.Tensor] = {}
        parts.unet.to(device, dtype)
        parts.text_encoder.to(device, dtype)
        parts.vae.to(device)  # in float32: float16 overflows in some VAEs, and decoding takes a small share of the time
        if device.type == "cuda":
            parts.unet.to(memory_format=torch.channels_last)
            parts.vae.to(memory_format=torch.channels_last)

    @classmethod
    def load(cls, files: Mapping[str, Path], device: torch.device, source: BaseSource) -> StableDiffusion:
        """Opens the files that finetune committed, and the base that they name, which must be the same to the byte.

        Raises DataError if a file or the base is missing, changed or does not fit, UnavailableError if the base's bucket does not
        answer.
        """
        try:
            made: dict[str, Any] = json.loads(files["generator.json"].read_bytes())
            schema = LabelSchema.model_validate_json(json.dumps(made["schema"]))
            caption = Captioner(schema, made["caption"], made["phrases"])
            resolution, method, text_encoder = made["resolution"], made["method"], made["text_encoder"]
            name, digests = made["base"], made["base_files"]
            dtype = torch.float32 if device.type == "cpu" else DTYPES[made["precision"]]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"generator.json: cannot be read ({error!r}); run finetune again") from error
        weights = weights_from_base(method, text_encoder)
        base = find_base(name, source, weights)
        base.check(digests, [part for part in FILES if part in (*weights, "tokenizer", "scheduler")])
        parts = load_parts(base, weights)
        load_trained(parts, method, text_encoder, files)
        return cls(parts, caption, resolution, device, dtype)

    def prompt(self, labels: Labels) -> str:
        """Returns the caption of labels `[C]`, as in the fine-tuning."""
        return self._caption(labels)

    @torch.inference_mode()
    def sample(self, requests: Sequence[SampleRequest], guidance: float, steps: int) -> NDArray[np.uint8]:
        """Returns RGB images `[n, resolution, resolution, 3]`, whose bytes follow from the requests and their order on one device type.

        Requests are drawn in groups that run the same part of the noise schedule: those from noise, and those of each strength.
        Raises InputError if the GPU's memory is too small.
        """
        images = np.empty((len(requests), self.resolution, self.resolution, 3), np.uint8)
        groups: dict[float | None, list[int]] = {}
        for position, request in enumerate(requests):
            if (request.start is None) != (request.strength is None):
                raise ValueError("a request has both a start and a strength, or neither")
            groups.setdefault(request.strength, []).append(position)
        try:
            for strength, positions in groups.items():
                latents = self._denoise([requests[i] for i in positions], strength, guidance, steps)
                for position, latent in zip(positions, latents, strict=True):
                    images[position] = self._decode(latent)
        except torch.OutOfMemoryError as error:
            raise InputError(
                f"generate: the GPU's memory is too small for {len(requests)} images of {self.resolution} pixels at once; "
                "lower generate.batch_size, or set finetune.precision to bf16"
            ) from error
        return images

    def _denoise(
        self, requests: Sequence[SampleRequest], strength: float | None, guidance: float, steps: int
    ) -> torch.Tensor:
        """Returns the latents `[n, 4, h, w]`, float32, of requests of one strength."""
        parts = self._parts
        scheduler = DPMSolverMultistepScheduler.from_config(
            parts.scheduler, algorithm_type="dpmsolver++", solver_order=2
        )
        with warnings.catch_warnings():  # diffusers 0.42 hands numpy a tensor in a way that numpy 2 deprecates
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            scheduler.set_timesteps(steps)
        side = self.resolution // parts.latent_factor
        shape = (parts.vae.config.latent_channels, side, side)
        # drawn on the CPU: a seed's noise is then the same on every device
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(r.seed)) for r in requests])
        noise = noise.to(self._device)
        timesteps = scheduler.timesteps
        latents: torch.Tensor
        if strength is None:
            latents = noise * scheduler.init_noise_sigma
        else:
            first = steps - max(1, round(steps * strength))
            scheduler.set_begin_index(first)
            timesteps = timesteps[first:]
            latents = scheduler.add_noise(self._encode(requests), noise, timesteps[:1].repeat(len(requests)))
        text = torch.stack([self._embedding(self.prompt(r.labels)) for r in requests])
        empty = self._embedding("").expand_as(text)
        for timestep in timesteps:
            latents = scheduler.step(
                self._predict(scheduler.scale_model_input(latents, timestep), timestep, text, empty, guidance),
                timestep,
                latents,
                return_dict=False,
            )[0]
        return latents

    def _predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor, empty: torch.Tensor, guidance: float
    ) -> torch.Tensor:
        """Returns the network's prediction with classifier-free guidance (Ho and Salimans 2022); a guidance of 1 is none."""
        latents = latents.to(self._dtype)
        if guidance == 1:
            plain: torch.Tensor = self._parts.unet(latents, timestep, text).sample.float()
            return plain
        twice, texts = torch.cat([latents, latents]), torch.cat([empty, text])
        both: torch.Tensor = self._parts.unet(twice, timestep, texts).sample.float()
        without, conditional = both.chunk(2)
        guided: torch.Tensor = without + guidance * (conditional - without)
        return guided

    def _embedding(self, prompt: str) -> torch.Tensor:
        """Returns the embedding `[t, d]` of a prompt. It is computed once, and alone, so that it does not depend on the batch."""
        if prompt not in self._texts:
            (found,) = embed(tokens([prompt], self._parts.tokenizer), self._parts.text_encoder)
            self._texts[prompt] = found[0]
        return self._texts[prompt]

    def _encode(self, requests: Sequence[SampleRequest]) -> torch.Tensor:
        """Returns the latents `[n, 4, h, w]` of the start images (the VAE's means), each encoded alone."""
        found = []
        for request in requests:
            start = request.start
            if start is None or start.shape != (self.resolution, self.resolution, 3):
                raise ValueError(f"start must have shape {(self.resolution, self.resolution, 3)}")
            pixels = torch.from_numpy(start.copy()).permute(2, 0, 1)[None].to(self._device).float() / 127.5 - 1
            found.append(self._parts.vae.encode(pixels).latent_dist.mean[0])
        latents: torch.Tensor = torch.stack(found) * self._parts.vae.config.scaling_factor
        return latents

    def _decode(self, latent: torch.Tensor) -> NDArray[np.uint8]:
        """Returns one image `[r, r, 3]`. Images are decoded one by one, as one of 512 x 512 pixels needs about 1 GB of memory."""
        pixels = self._parts.vae.decode(latent[None] / self._parts.vae.config.scaling_factor).sample[0]
        scaled = (pixels / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu() * 255
        image: NDArray[np.uint8] = scaled.round().to(torch.uint8).numpy()
        return image
