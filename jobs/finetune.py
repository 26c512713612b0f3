"""finetune: trains the generator of synthetic images on the training split.

Reads `prepare`, and `weights` where the base is the hub's. Commits `generator.json`, weights (`*.safetensors`), the training curve
`curve.json` (step, loss, seconds) and the sheet `samples.png` with generated images of the rare classes (of all, where none is rare)
beside real ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shared.artifacts.manifest import Manifest
from shared.checkpoint import Checkpoints
from shared.config.generation import PixelFinetune
from shared.config.stages import FinetuneConfig
from shared.context import Context
from shared.data.dataset import rare_classes, read_info
from shared.data.imageset import ImageSet, read_shards
from shared.errors import DataError
from shared.fetched import FetchedBase, fetched_base
from shared.settings import Settings
from shared.stop import StopSignal

if TYPE_CHECKING:
    import torch

SHEET_GUIDANCE = 2.0
SHEET_STEPS = 20


def run(config: FinetuneConfig, context: Context) -> Manifest:
    """Fetches the data set, trains (on from a checkpoint, if there is one), and commits."""
    from shared.device import device_name, pick_device

    prepared = context.input("prepare")
    info = read_info(context.fetch(prepared, "dataset.json"))
    images = read_shards(context.fetch_all(prepared, "images"), info.schema_).of("train")
    device = pick_device(context.task.resources.device)
    out = context.scratch / "out"
    curve = finetune(
        config, images, rare_classes(config.rare, info), out, context.checkpoints("training"), context.stop, device,
        context.settings, fetched_base(context),
    )  # fmt: skip
    summary = {"steps": config.finetune.steps, "loss": curve[-1]["loss"], "images": len(images)}
    files = {path.name: path for path in sorted(out.iterdir())}
    return context.commit(files, summary, device_name(device))


def finetune(
    config: FinetuneConfig,
    images: ImageSet,
    rare: NDArray[np.int64],
    out: Path,
    checkpoints: Checkpoints,
    stop: StopSignal,
    device: torch.device,
    settings: Settings,
    fetched: FetchedBase | None = None,
) -> list[dict[str, float]]:
    """Trains on the train split `images` and writes the committed files into the new folder `out`; returns the curve.

    Scratch files go beside `out`; `fetched` is a base from the hub. Raises DataError where there is no image, InputError where the
    loss becomes NaN, and Stopped after a checkpoint.
    """
    if not len(images):
        raise DataError("finetune: the data set has no training image; look at its `split` column")
    out.mkdir(parents=True)
    if isinstance(config.finetune, PixelFinetune):
        from shared.diffusion.pixel_train import finetune_pixel

        curve = finetune_pixel(config.finetune, images, config.seed, out, checkpoints, stop, device)
    else:
        from shared.diffusion.stable_diffusion_train import finetune_stable_diffusion

        curve = finetune_stable_diffusion(
            config.finetune, images, rare, config.seed, out, checkpoints, stop, device, settings, out.parent / "bucket",
            fetched=fetched,
        )  # fmt: skip
    stop.raise_if_set()
    _write_sheet(images, rare, config.seed, out, device, settings, fetched)
    return curve


def _write_sheet(
    images: ImageSet,
    rare: NDArray[np.int64],
    seed: int,
    out: Path,
    device: torch.device,
    settings: Settings,
    fetched: FetchedBase | None,
) -> None:
    from shared.diffusion.load import load_generator
    from shared.diffusion.samples import sample_sheet

    files = {path.name: path for path in out.iterdir()}
    generator = load_generator(files, device, settings, out.parent / "bucket", fetched=fetched)
    columns = rare if len(rare) else np.arange(images.schema.width)
    sample_sheet(generator, images, columns, SHEET_GUIDANCE, SHEET_STEPS, seed).save(out / "samples.png")
