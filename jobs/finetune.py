"""`finetune`: trains the generator of synthetic images on the training split.

Reads `prepare`, and `weights` if the base is from the hub. Commits `generator.json`, weights (`*.safetensors`), the training curve
`curve.json` (step, loss, seconds) and `samples.png`, which shows generated images of the rare classes (of all classes, if none is rare)
beside real ones.
"""

from __future__ import annotations

from dataclasses import replace
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import numpy as np

from shared.artifacts.manifest import Manifest
from shared.config.generation import AnyFinetune
from shared.config.stages import FinetuneConfig
from shared.context import Context
from shared.data.dataset import rare_classes, read_info
from shared.data.imageset import read_shards
from shared.diffusion.generators import generator_kind
from shared.errors import DataError
from shared.log import Log
from shared.weights.inputs import fetched_base

if TYPE_CHECKING:
    import torch

    from shared.diffusion.generator import Finetuning, Train

SHEET_GUIDANCE = 2.0
SHEET_STEPS = 20

log = Log("finetune")


def run(config: FinetuneConfig, context: Context) -> Manifest:
    """Fetches the data set, trains (from a checkpoint, if there is one) and commits."""
    from shared.device import device_name, pick_device
    from shared.diffusion.generator import BaseSource, Finetuning

    prepared = context.input("prepare")
    info = read_info(context.fetch(prepared, "dataset.json"))
    images = read_shards(context.fetch_all(prepared, "images"), info.schema_).of("train")
    device = pick_device(context.task.resources.device)
    finetuning = Finetuning(
        images=images,
        rare=rare_classes(config.rare, info),
        seed=config.seed,
        device=device,
        out=context.scratch / "out",
        checkpoints=context.checkpoints("training"),
        stop=context.stop,
        base=BaseSource(
            context.settings, context.scratch / "bucket", fetched=fetched_base(context), compiled=context.compiled
        ),
        processes=process_count(config.finetune, device),
    )
    curve = finetune(config.finetune, finetuning)
    summary = {"steps": config.finetune.steps, "loss": curve[-1]["loss"], "images": len(images)}
    files = {path.name: path for path in sorted(finetuning.out.iterdir())}
    return context.commit(files, summary, device_name(device))


def finetune(config: AnyFinetune, finetuning: Finetuning) -> list[dict[str, float]]:
    """Trains the generator that `config` chooses, writes the files to commit into `out`, and returns the curve.

    Raises DataError if there is no image, InputError if the loss becomes NaN, and Stopped after a checkpoint.
    """
    if not len(finetuning.images):
        raise DataError("finetune: the data set has no training image; check its `split` column")
    train: Train = resolve_name(generator_kind(config.generator).train)
    curve = train(config, finetuning)
    finetuning.stop.raise_if_set()
    _write_sheet(finetuning, config.sampling_of_base)
    return curve


def process_count(config: AnyFinetune, device: torch.device) -> int:
    """Returns the number of processes of the training, one per GPU that it can use, and warns if some GPUs stay idle."""
    from shared.device import gpu_count

    gpus = gpu_count(device)
    count = generator_kind(config.generator).most_gpus(config, gpus)
    if count < gpus:
        log.warning(
            "not all GPUs are used: this generator can train on no more with its batch_size",
            used=count,
            gpus=gpus,
            batch_size=config.batch_size,
        )
    return count


def _write_sheet(finetuning: Finetuning, sampling_of_base: bool) -> None:
    from shared.diffusion.load import load_generator
    from shared.diffusion.samples import sample_sheet

    images, rare, out = finetuning.images, finetuning.rare, finetuning.out
    files = {path.name: path for path in out.iterdir()}
    # so few images are drawn sooner than a network is compiled
    generator = load_generator(files, finetuning.device, replace(finetuning.base, compiled=None))
    columns = rare if len(rare) else np.arange(images.schema.width)
    guidance, steps = (generator.guidance, generator.steps) if sampling_of_base else (SHEET_GUIDANCE, SHEET_STEPS)
    sheet = sample_sheet(generator, images, columns, guidance, steps, finetuning.seed)
    sheet.save(out / "samples.png")
