"""Draws images with a fine-tuned text-to-image model: the base's sampler, classifier-free guidance, and image-to-image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from shared.config.generation import FEW_STEP_GUIDANCE, FEW_STEP_STEPS
from shared.data.schema import Labels, LabelSchema
from shared.diffusion.generator import (
    BaseSource,
    Generator,
    SampleRequest,
    by_strength,
    draw_noise,
    guided,
    noise_generators,
    start_pixels,
)
from shared.diffusion.text_to_image.autoencoder import Autoencoder
from shared.diffusion.text_to_image.base import find_base
from shared.diffusion.text_to_image.base_files import STABLE_DIFFUSION, TEXT_TO_IMAGE
from shared.diffusion.text_to_image.caption import Captioner
from shared.diffusion.text_to_image.class_tokens import ClassTokens, WithClassTokens
from shared.diffusion.text_to_image.compiled import compile_denoiser
from shared.diffusion.text_to_image.families.family import Condition, Family, find_family
from shared.diffusion.text_to_image.few_step import FewStepLora
from shared.diffusion.text_to_image.model import ClassAdapters, Trained, weights_from_base
from shared.errors import DataError, InputError
from shared.log import Log

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PROMPTS = "generate.prompts"
VAE_PIXELS = 4 * 512**2  # at once on a GPU: an image of 512 x 512 pixels needs up to 1 GB
LAYOUTS = {"stable-diffusion": STABLE_DIFFUSION, "text-to-image": TEXT_TO_IMAGE}
"""Maps the generators of this package to the files of the bases that they accept."""

log = Log("generate")


class Readable(Protocol):
    """Reads the parts with which images are drawn, such as those that a fine-tuning wrote."""

    def load(self, part: str, dtype: torch.dtype, merge: bool = False) -> Any:
        """Returns a part on the CPU; `merge` adds adapters to the weights."""


class TextToImage(Generator):
    """Draws with a text-to-image model on one device, conditioned on captions.

    Its parts are loaded when they are first needed: text encoders for prompts that are new, and freed after that; then the VAE and the
    denoiser.
    """

    def __init__(
        self,
        family: Family,
        trained: Readable,
        captions: Callable[[str | None], Captioner],
        resolution: int,
        device: torch.device,
        dtype: torch.dtype,
        strength_counts_steps: bool,
        source: BaseSource,
    ) -> None:
        """Takes what `trained` reads, and from `source` the scheduler of a LoRA for few steps and the folder for compiled networks."""
        self.resolution = resolution
        self.guidance, self.steps = family.kind.guidance, family.kind.steps
        self._few_step = None if source.few_step is None else source.few_step.scheduler
        """Names the scheduler of a LoRA for few steps, if there is one."""
        if self._few_step is not None:
            self.guidance, self.steps = FEW_STEP_GUIDANCE, FEW_STEP_STEPS
        self._family, self._trained, self._captions = family, trained, cache(captions)
        self._device, self._dtype = device, dtype
        self._process = family.process(resolution)
        self._strength_counts_steps = strength_counts_steps
        self._conditions: dict[str, Condition] = {}
        self._loaded: tuple[Any, Autoencoder] | None = None
        # adapters that change between images would be compiled at each change
        self._compiled = None if isinstance(trained, ClassAdapters) else source.compiled
        """Points to the folder for the compiled network, until it is compiled."""
        self._most: int | None = None
        """Limits the images drawn at once, after the GPU's memory was too small for more."""

    @classmethod
    def load(cls, files: Mapping[str, Path], device: torch.device, source: BaseSource) -> TextToImage:
        """Opens the files that finetune committed, and the base that they name, which must be the same to the byte.

        Raises DataError if a file or the base is missing, changed or does not fit, UnavailableError if the base's bucket does not
        answer.
        """
        try:
            made: dict[str, Any] = json.loads(files["generator.json"].read_bytes())
            schema = LabelSchema.model_validate_json(json.dumps(made["schema"]))
            template, phrases = made["caption"], made["phrases"]
            Captioner(schema, template, phrases)
            tokens = _tokens(made, schema)
            resolution, method, text_encoder = made["resolution"], made["method"], made["text_encoder"]
            columns = [schema.column(name) for name in made.get("adapters", ())]
            name, digests, layout = made["base"], made["base_files"], LAYOUTS[made["generator"]]
            dtype = torch.float32 if device.type == "cpu" else DTYPES[made["precision"]]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"generator.json: cannot be read ({error!r}); run finetune again") from error
        replaced = tuple(part for part in layout.parts if f"{part}.safetensors" in files)
        base = find_base(name, source, layout, replaced)
        family = find_family(base)
        base.check(digests, weights_from_base(family, method, text_encoder))
        few = None if source.few_step is None else FewStepLora(source.few_step, family)
        trained: Readable = (
            ClassAdapters(files, family, columns, few) if columns else Trained(files, family, method, text_encoder, few)
        )
        if tokens is not None and isinstance(trained, Trained):
            trained, phrases = WithClassTokens(trained, tokens, files, family), tokens.captioned()
        counts_steps = made["generator"] == "stable-diffusion"

        def captions(other: str | None) -> Captioner:
            return Captioner(schema, template, phrases) if other is None else Captioner(schema, other, phrases, PROMPTS)

        return cls(family, trained, captions, resolution, device, dtype, counts_steps, source)

    def prompt(self, labels: Labels, template: str | None = None) -> str:
        """Returns the caption of labels `[C]`, by the template of the fine-tuning or another one; raises ConfigError for a wrong template."""
        return self._captions(template)(labels)

    @torch.inference_mode()
    def prepare(self, prompts: Sequence[str]) -> None:
        """Encodes prompts that are new, each alone, so that none depends on the others, and frees the text encoders.

        Conditions stay on the CPU, as those of a whole set of images may need gigabytes. Raises InputError if the GPU's memory is too small.
        """
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._conditions]
        if not new:
            return
        family = self._family
        with _memory_errors("the text encoders", "take a GPU with more, or a base with smaller ones"):
            encoders = family.load_encoders(self._device, family.encoder_dtype(self._dtype), self._trained.load)
            for prompt in new:
                (condition,) = family.encode(encoders, [prompt])
                self._conditions[prompt] = {name: value.to(self._dtype).cpu() for name, value in condition.items()}

    def noise_share(self, strength: float, steps: int) -> float:
        """Returns the share of noise of the step at which images of this strength begin."""
        scheduler = self._process.scheduler(steps, self._few_step)
        return float(self._process.shares(scheduler)[self._first_step(scheduler, strength)])

    @torch.inference_mode()
    def sample(
        self,
        requests: Sequence[SampleRequest],
        guidance: float,
        steps: int,
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> NDArray[np.uint8]:
        """Returns RGB images `[n, resolution, resolution, 3]`, whose bytes follow from the requests and their order on one device type.

        Raises InputError if the GPU's memory is too small.
        """
        images = np.empty((len(requests), self.resolution, self.resolution, 3), np.uint8)
        self.prepare([text for request in requests for text in (self._text(request), request.negative)])
        what = f"{len(requests)} images of {self.resolution} pixels at once"
        with _memory_errors(what, "lower generate.batch_size, or set finetune.precision to bf16"):
            for column, own in self._by_adapter(requests).items():
                if isinstance(self._trained, ClassAdapters):
                    self._trained.use(self._parts()[0], column)
                for strength, positions in by_strength([requests[i] for i in own]).items():
                    rows = [own[i] for i in positions]
                    images[rows] = self._draw([requests[i] for i in rows], strength, guidance, steps, interval)
        return images

    def _by_adapter(self, requests: Sequence[SampleRequest]) -> dict[int | None, list[int]]:
        """Returns the positions of the requests by the class whose adapters draw them: the rarest of their classes that has some."""
        columns = self._trained.columns if isinstance(self._trained, ClassAdapters) else ()
        groups: dict[int | None, list[int]] = {}
        for position, request in enumerate(requests):
            column = next((c for c in columns if request.labels[c] == 1), None)
            groups.setdefault(column, []).append(position)
        return groups

    def _draw(
        self,
        requests: Sequence[SampleRequest],
        strength: float | None,
        guidance: float,
        steps: int,
        interval: tuple[float, float],
    ) -> NDArray[np.uint8]:
        """Returns the images of requests of one strength, of half as many at once if the GPU's memory is too small."""
        done: list[NDArray[np.uint8]] = []
        first = 0
        while first < len(requests):
            part = requests[first : first + (self._most or len(requests))]
            try:
                done.append(self._decode(self._denoise(part, strength, guidance, steps, interval)))
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self._most = len(part) // 2
                log.warning("the GPU's memory is too small for the images; fewer are drawn at once", images=len(part))
            else:
                first += len(part)
                continue
            torch.cuda.empty_cache()  # after the exception is gone, which holds tensors
        return np.concatenate(done)

    def _parts(self) -> tuple[Any, Autoencoder]:
        """Returns the denoiser and the VAE, after loading them if necessary."""
        if self._loaded is None:
            on_gpu = self._device.type == "cuda"
            autoencoder = self._family.autoencoder(self._family.autoencoder_dtype(self._dtype))
            autoencoder.vae.to(self._device)
            # on a CPU adapters stay apart, so that images are those of earlier versions to the byte
            model = self._trained.load(self._family.denoiser, self._dtype, merge=on_gpu).to(self._device)
            if on_gpu:
                autoencoder.vae.to(memory_format=torch.channels_last)
                if self._family.denoiser == "unet":
                    model.to(memory_format=torch.channels_last)
            self._loaded = model, autoencoder
        return self._loaded

    def _text(self, request: SampleRequest) -> str:
        return self.prompt(request.labels) if request.prompt is None else request.prompt

    def _conditions_of(self, prompts: Sequence[str]) -> list[Condition]:
        """Returns the conditions of prompts on the device."""
        found = {
            prompt: {name: value.to(self._device) for name, value in self._conditions[prompt].items()}
            for prompt in dict.fromkeys(prompts)
        }
        return [found[prompt] for prompt in prompts]

    def _denoise(
        self,
        requests: Sequence[SampleRequest],
        strength: float | None,
        guidance: float,
        steps: int,
        interval: tuple[float, float],
    ) -> torch.Tensor:
        """Returns the latents `[n, c, h, w]`, float32, of requests of one strength."""
        scheduler = self._process.scheduler(steps, self._few_step)
        generators = noise_generators(requests)
        noise = draw_noise(generators, self._family.latent_shape(self.resolution)).to(self._device)
        # a consistency model draws noise in each step, which must follow from the image's own seed
        drawing = {"generator": generators} if self._few_step == "lcm" else {}
        start, first = (
            (None, 0) if strength is None else (self._encode(requests), self._first_step(scheduler, strength))
        )
        latents = self._process.start(scheduler, noise, start, first)
        text = self._conditions_of([self._text(request) for request in requests])
        without = self._conditions_of([request.negative for request in requests])
        if self._compiled is not None:
            begin = scheduler.timesteps[first]
            gain = compile_denoiser(
                self._parts()[0],
                lambda: self._predict(scheduler, latents, begin, (without, text), guidance),
                self._compiled,
            )
            gain.per((len(scheduler.timesteps) - first) / len(requests)).tell(log, "image")
            self._compiled = None
        for number, timestep in enumerate(scheduler.timesteps[first:], first):
            scale = guidance if guided(number, steps, interval) else 1.0
            latents = scheduler.step(
                self._predict(scheduler, latents, timestep, (without, text), scale),
                timestep,
                latents,
                return_dict=False,
                **drawing,
            )[0]
        return latents

    def _first_step(self, scheduler: Any, strength: float) -> int:
        """Returns the step at which image-to-image begins: that whose share of noise is nearest to `strength`.

        Strength is the share of the steps instead for the generator `stable-diffusion`, as it always was.
        """
        steps = len(scheduler.timesteps)
        if self._strength_counts_steps:
            return steps - max(1, round(steps * strength))
        return int((self._process.shares(scheduler) - strength).abs().argmin())

    def _predict(
        self,
        scheduler: Any,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        conditions: tuple[Sequence[Condition], Sequence[Condition]],
        guidance: float,
    ) -> torch.Tensor:
        """Returns the network's prediction with classifier-free guidance (Ho and Salimans 2022); a guidance of 1 is none.

        `conditions` are those that guidance leads away from, and those that it leads to.
        """
        model, _ = self._parts()
        scaled = getattr(scheduler, "scale_model_input", lambda sample, _: sample)(latents, timestep)
        level = self._process.level(timestep).to(self._device)
        noisy = scaled.to(self._dtype)
        away, to = conditions
        if guidance == 1:
            return self._family.predict(model, noisy, level.expand(len(noisy)), to).float()
        twice = torch.cat([noisy, noisy])
        both = self._family.predict(model, twice, level.expand(len(twice)), [*away, *to]).float()
        without, conditional = both.chunk(2)
        return without + guidance * (conditional - without)

    def _encode(self, requests: Sequence[SampleRequest]) -> torch.Tensor:
        """Returns the normalised latents `[n, c, h, w]` of the start images (the VAE's means)."""
        _, autoencoder = self._parts()
        starts = start_pixels(requests, self.resolution, self._device)
        means = [autoencoder.encode(part)[0] for part in torch.split(starts, self._images_in_vae())]
        return autoencoder.normalise(torch.cat(means))

    def _decode(self, latents: torch.Tensor) -> NDArray[np.uint8]:
        """Returns the images `[n, r, r, 3]` of latents `[n, c, h, w]`."""
        _, autoencoder = self._parts()
        images = []
        for part in torch.split(latents, self._images_in_vae()):
            pixels = (autoencoder.decode(part) / 2 + 0.5).clamp(0, 1) * 255
            images.append(pixels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu())
        found: NDArray[np.uint8] = torch.cat(images).numpy()
        return found

    def _images_in_vae(self) -> int:
        """Returns how many images the VAE takes at once. On a CPU it is one, as in earlier versions, whose bytes these are."""
        return 1 if self._device.type == "cpu" else max(1, VAE_PIXELS // self.resolution**2)


def _tokens(made: Mapping[str, Any], schema: LabelSchema) -> ClassTokens | None:
    """Returns the tokens of classes that generator.json names, or None; raises KeyError or ValueError for what is not of that form."""
    if "class_tokens" not in made:
        return None
    own = made["class_tokens"]
    return ClassTokens(schema, [schema.column(name) for name in own["classes"]], int(own["count"]), made["phrases"])


@contextmanager
def _memory_errors(what: str, remedy: str) -> Iterator[None]:
    """Raises InputError if the GPU's memory is too small for `what`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(f"generate: the GPU's memory is too small for {what}; {remedy}") from error
