"""Measures how long a text-to-image model takes on this machine, for a forecast.

Its networks get random weights in the shapes of the base, whose small files say all that a timing needs: gigabytes of weights need not be there.
What a fine-tuning does once, reading the weights and encoding the images, is not in the figures.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared.artifacts.open import is_s3
from shared.benchmark import NotTimed, Range, exactly, repeated, spread, work_clock
from shared.config.generation import FEW_STEP_GUIDANCE, FEW_STEP_STEPS, AnyPretrained, Generate
from shared.config.search import Resources
from shared.data.random_images import random_images
from shared.data.schema import LabelSchema
from shared.device import pick_device, release_memory
from shared.diffusion.generator import BaseSource, SampleRequest, guided_share, sampling
from shared.diffusion.text_to_image.base import Base
from shared.diffusion.text_to_image.base_files import has_weights
from shared.diffusion.text_to_image.caption import Captioner
from shared.diffusion.text_to_image.class_tokens import ClassTokens
from shared.diffusion.text_to_image.families.family import Family, find_family
from shared.diffusion.text_to_image.generator import DTYPES, LAYOUTS, Readable, TextToImage
from shared.diffusion.text_to_image.processes import Rank
from shared.diffusion.text_to_image.train import Job, describe, train
from shared.errors import ConfigError, DataError, InputError, UnavailableError
from shared.settings import Settings
from shared.stop import StopSignal
from shared.weights.files import files_in_bucket
from shared.weights.roles import BASE_SETTING, is_hub_name

STEPS = 6
"""Counts the training steps that are run. The first one is not timed, as it includes what is set up once."""
MOST_DRAWN = 8
"""Limits the images that are drawn at once; more take about as long per image."""
MOST_ON_CPU = 50_000_000
"""Limits the weights of a denoiser that is timed on a CPU, on which a step of a published one takes minutes."""


def time_text_to_image(
    config: AnyPretrained, generate: Generate, schema: LabelSchema, resources: Resources, settings: Settings
) -> tuple[Range, Range]:
    """Returns the seconds per training step of the denoiser and per generated image, each as a range.

    Raises NotTimed if the hub does not give the small files of the base, if the memory of the GPU is too small, and on a CPU for a denoiser
    that would take too long there.
    """
    device = pick_device(resources.device)
    with tempfile.TemporaryDirectory(prefix="tailfill-") as name:
        folder = Path(name)
        small = _small_files(config, settings, folder)
        family = find_family(
            Base(config.base_location, config.base_revision, small, LAYOUTS[config.generator], untrained=True)
        )
        if device.type == "cpu" and (weights := _weights_of_denoiser(family)) > MOST_ON_CPU:
            raise NotTimed(f"on a CPU a network of {weights / 1e6:,.0f} million weights would take minutes per step")
        job = _job(config, family, schema, folder, device)
        try:
            step = _step_seconds(job)
            release_memory()
            image = _image_seconds(job, family, generate, device, BaseSource(settings, folder))
        except InputError as error:
            raise NotTimed(str(error)) from error
        release_memory()
        return step, image


def _small_files(config: AnyPretrained, settings: Settings, folder: Path) -> Path:
    """Returns a folder that has the configurations and tokenizers of the base, under their paths in it."""
    name, layout = config.base_location, LAYOUTS[config.generator]
    networks = [part for part in layout.parts if has_weights(part)]
    if is_hub_name(name):
        return _from_hub(config, networks, settings)
    if not is_s3(name):
        return Path(name)
    files = files_in_bucket(name, settings)
    for path in layout.choose([*files.sizes], without=networks):
        target = folder / "base" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(files.text(path, f"{BASE_SETTING} {name}: {path}"))
    return folder / "base"


def _from_hub(config: AnyPretrained, networks: list[str], settings: Settings) -> Path:
    from shared.weights.hub import download, hub_answers, open_repository

    name, layout, stop = config.base_location, LAYOUTS[config.generator], StopSignal()
    if not hub_answers():
        raise NotTimed(f"the hub, which has the configuration of {name}, does not answer, or HF_HUB_OFFLINE is set")
    try:
        repository = open_repository(name, config.base_revision, BASE_SETTING, settings, stop)
        chosen = layout.choose([*repository.files], without=networks)
        if not chosen:
            raise NotTimed(f"{name} has no files of {layout.about}")
        found = download(repository, chosen, settings, stop)
    except (ConfigError, DataError, UnavailableError) as error:
        raise NotTimed(str(error)) from error
    path, local = next(iter(found.items()))
    return local.parents[path.count("/")]


def _weights_of_denoiser(family: Family) -> int:
    model = family.load(family.denoiser, weights=False)
    return sum(parameter.numel() for parameter in model.parameters())


def _job(config: AnyPretrained, family: Family, schema: LabelSchema, folder: Path, device: torch.device) -> Job:
    """Returns a short fine-tuning on random images."""
    made = describe(config, family, schema)
    images = random_images(schema, made["resolution"], config.batch_size * config.gradient_accumulation)
    shown = np.flatnonzero((images.labels == 1).any(axis=0))
    tokens = ClassTokens.of_rare(images, shown[:1], config.class_tokens, config.phrases)
    caption = Captioner(schema, config.caption, tokens.captioned() if tokens else config.phrases)
    return Job(
        config=config.model_copy(update={"steps": STEPS, "per_class": False}),
        images=images,
        captions=[caption(labels) for labels in images.labels],
        seed=0,
        base=family.base,
        folder=folder,
        resume=None,
        cpu=device.type == "cpu",
        resolution=made["resolution"],
        precision="fp32" if device.type == "cpu" else made["precision"],
        tokens=tokens,
    )


def _step_seconds(job: Job) -> Range:
    first, *_, last = train(job, Rank())
    return exactly(max(last["seconds"] - first["seconds"], 1e-3) / (STEPS - 1))


class _OfBase(Readable):
    """Reads the parts of the base, as adapters cost nothing once they are merged."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def load(self, part: str, dtype: torch.dtype, merge: bool = False) -> Any:
        """Returns a part on the CPU."""
        return self._family.load(part, dtype)


def _image_seconds(job: Job, family: Family, generate: Generate, device: torch.device, source: BaseSource) -> Range:
    """Returns the seconds per image: those of all steps, whose number the study sets, and what is done once per image, as the VAE's work."""
    config, labels = job.config, job.images.labels

    def captions(template: str | None) -> Captioner:
        return Captioner(job.images.schema, template or config.caption, config.phrases)

    dtype = torch.float32 if device.type == "cpu" else DTYPES[job.precision]
    drawing = TextToImage(family, _OfBase(family), captions, job.resolution, device, dtype, True, source)
    guidance, steps = sampling(generate, drawing)
    if generate.few_step is not None:
        guidance = FEW_STEP_GUIDANCE if generate.guidance is None else generate.guidance
        steps = FEW_STEP_STEPS if generate.steps is None else generate.steps
    count = min(generate.batch_size, MOST_DRAWN)
    requests = [SampleRequest(labels[i % len(labels)], i) for i in range(count)]
    clock = work_clock(device.type == "cuda", torch.get_num_threads())

    def seconds(sampler_steps: int) -> float:
        start = clock()
        drawing.sample(requests, guidance, sampler_steps)
        return clock() - start

    one, two = spread(repeated(lambda: seconds(1))), spread(repeated(lambda: seconds(2)))
    share = 1.0 if guidance == 1 else guided_share(steps, generate.guidance_interval)
    return all_steps(one, two, share * steps) / count


def all_steps(one: Range, two: Range, steps: float) -> Range:
    """Returns the seconds of drawing in so many steps, by those of one step and of two, and of what is done once."""
    step = max(float(two[1] - one[1]), 0.0)
    whole = max(float(one[1]) - step, 0.0) + steps * step
    return two * (whole / float(two[1]))
