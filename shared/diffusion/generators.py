"""Defines the table of generators, which all code reads that must know all of them.

It imports no torch, so that control may read it too. Functions that need torch are named `module:name`, and
`pkgutil.resolve_name` finds them when they are called.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from shared.config.generation import (
    SD_15,
    SD_15_COMMIT,
    Finetune,
    Generate,
    PixelFinetune,
    PretrainedFinetune,
    StableDiffusionFinetune,
    TextToImageFinetune,
)
from shared.diffusion.text_to_image.base_files import STABLE_DIFFUSION, TEXT_TO_IMAGE, Layout
from shared.diffusion.text_to_image.families.about import about_base
from shared.diffusion.text_to_image.families.table import family_of_index
from shared.errors import DataError


@dataclass(frozen=True)
class BaseFiles:
    """Lists the files of a generator's pretrained base model, by paths inside its folder or repository."""

    layout: str
    """Describes such a base, for messages."""
    choose: Callable[[Collection[str]], list[str]]
    """Returns the files that are read, of those that a base has; no other file is fetched or counts in a key."""
    missing: Callable[[Collection[str]], list[str]]
    """Returns the files that a base lacks, given those that it has: a repository that lacks one is refused before anything is fetched."""
    pickles: Mapping[str, str]
    """Maps files of weights to the pickles that a repository of the hub may have in their place, which the stage `weights` converts."""
    instead: str
    """Names a base that lacks nothing, as settings in YAML, for messages."""
    check_index: Callable[[bytes, str], object] | None = None
    """Raises DataError for the content of a model_index.json, and the base's name, that no family of the generator has."""


@dataclass(frozen=True)
class GeneratorKind:
    """Declares one generator."""

    config: type[Finetune]
    """Declares the section `finetune` of a study that chooses it."""
    about: str
    """Describes it in the studies that `tailfill init` writes."""
    train: str
    """Names the function that trains it, a `shared.diffusion.generator.Train`."""
    load: str
    """Names the function that loads what `train` wrote, a `shared.diffusion.generator.Load`."""
    time: str
    """Names the function that times it for a forecast, a `shared.diffusion.generator.Time`."""
    most_gpus: Callable[[Any, int], int] = lambda config, gpus: 1
    """Returns how many of the available GPUs (0 on a CPU) one training can use, at least 1, by its config."""
    base: BaseFiles | None = None
    """Describes its pretrained base, or None if it is trained from scratch."""
    about_base: Callable[[Any, Generate], str] | None = None
    """Returns a line about the base that its config names, and the settings that follow from it; None if it has no base."""
    example: str = ""
    """Holds settings as YAML, if `tailfill init` offers it as an alternative."""


def _even_share(config: PretrainedFinetune, gpus: int) -> int:
    """Returns the most processes, one per GPU, that share each batch evenly."""
    return max(n for n in range(1, max(gpus, 1) + 1) if config.batch_size % n == 0)


_DEFAULT_BASE = f"base: {SD_15}, revision: {SD_15_COMMIT}"


def _base_files(layout: Layout, check: Callable[[bytes, str], object] | None = None) -> BaseFiles:
    return BaseFiles(layout.about, layout.choose, layout.missing, layout.pickles, _DEFAULT_BASE, check)


GENERATORS = {
    "pixel": GeneratorKind(
        config=PixelFinetune,
        about="a small flow model in pixel space, trained here on all classes; runs on a CPU",
        train="shared.diffusion.pixel.train:finetune_pixel",
        load="shared.diffusion.pixel.generator:PixelGenerator.load",
        time="shared.diffusion.pixel.timing:time_pixel",
    ),
    "stable-diffusion": GeneratorKind(
        config=StableDiffusionFinetune,
        about="with a GPU, fine-tune Stable Diffusion (its base is a folder, s3://bucket/prefix or hub name)",
        train="shared.diffusion.text_to_image.train:finetune_text_to_image",
        load="shared.diffusion.text_to_image.generator:TextToImage.load",
        time="shared.diffusion.text_to_image.timing:time_text_to_image",
        most_gpus=_even_share,
        base=_base_files(STABLE_DIFFUSION),
        about_base=about_base,
        example=f"{_DEFAULT_BASE}, method: lora, steps: 1500, resolution: 512",
    ),
    "text-to-image": GeneratorKind(
        config=TextToImageFinetune,
        about="with a GPU, fine-tune a newer text-to-image model, e.g. Stable Diffusion XL or 3.5, FLUX.2-klein-base, Z-Image",
        train="shared.diffusion.text_to_image.train:finetune_text_to_image",
        load="shared.diffusion.text_to_image.generator:TextToImage.load",
        time="shared.diffusion.text_to_image.timing:time_text_to_image",
        most_gpus=_even_share,
        base=_base_files(TEXT_TO_IMAGE, family_of_index),
        about_base=about_base,
        example="base: stabilityai/stable-diffusion-xl-base-1.0, method: lora, learning_rate: 1e-4, steps: 1500",
    ),
}
"""Maps the values of `finetune.generator` to the entries."""


def generator_kind(name: str) -> GeneratorKind:
    """Returns the entry of a generator; raises DataError, with the names that there are and those near, if it has none."""
    if name not in GENERATORS:
        close = difflib.get_close_matches(name, GENERATORS)
        meant = f"; did you mean {' or '.join(close)}?" if close else ""
        raise DataError(f"there is no generator {name!r}; there are {', '.join(GENERATORS)}{meant}")
    return GENERATORS[name]
