"""`generate`: draws the synthetic images and commits all of them with their provenance.

Reads `prepare` and `finetune`, and `weights` if the base or a LoRA for few steps is from the hub. Commits `images-*.parquet`: an image set of the split
`generated`, with the extra columns index, pool, seed, filled, source, prompt, guidance, strength, start and model. If images start from
similar classes there is also noise_share, the share of noise on the image at the start: their labels are shared between both images by it.

The work is divided into blocks of `batch_size` indices, which depend only on the plan. Process `JOB_COMPLETION_INDEX` of `TAILFILL_COUNT`
draws the missing blocks whose number has that remainder, and saves each as a part. A process that then finds all parts commits them. Only
one commit takes effect, and any number of processes gives the same bytes on one device type. Processes with the same index share their
blocks.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shared.artifacts.artifacts import Pointer
from shared.artifacts.checkpoints import AsyncCheckpointer
from shared.artifacts.manifest import Manifest
from shared.config.generation import Generate
from shared.config.seeds import hashed_seed
from shared.config.stages import GenerateConfig
from shared.context import Context
from shared.data.dataset import DatasetInfo, rare_classes, read_info
from shared.data.encoded import EncodedImages
from shared.data.imageset import NOISE_SHARE, ImageSet, decode, read_shards, write_shards
from shared.log import Log
from shared.weights.inputs import fetched_base, few_step_adapter

if TYPE_CHECKING:
    import torch

    from shared.diffusion.generator import Generator
    from shared.diffusion.quota import PlannedImage, StartingPoints, Starts

COLUMNS = pa.schema(
    [
        ("index", pa.int64()), ("pool", pa.int32()), ("seed", pa.int64()), ("filled", pa.string()), ("source", pa.int64()),
        ("prompt", pa.string()), ("guidance", pa.float64()), ("strength", pa.float64()), ("start", pa.int64()), ("model", pa.string()),
    ]
)  # fmt: skip
SOFT_COLUMN = pa.field(NOISE_SHARE, pa.float64())
"""Describes the column that is there if images have soft labels."""

log = Log("generate")


def run(config: GenerateConfig, context: Context) -> Manifest | None:
    """Draws this process's blocks and commits if no block is missing; returns None if other processes are still drawing some."""
    from shared.device import device_name, pick_device
    from shared.diffusion.quota import plan_images

    prepared = context.input("prepare")
    info = read_info(context.fetch(prepared, "dataset.json"))
    train = read_shards(context.fetch_all(prepared, "images"), info.schema_).of("train")
    rare = rare_classes(config.rare, info)
    similar = partial(_similar_starts, config.generate, train, info.resolution, context)
    plan = plan_images(config.generate, info.schema_, train.labels, rare, config.seed, config.pool, similar)
    blocks = -(-len(plan) // config.generate.batch_size)
    device = pick_device(context.task.resources.device)
    _make_blocks(config, context, plan, train, info.resolution, blocks, device)
    task = context.task
    parts = context.artifacts.parts(task.stage, task.key)
    if len(parts) < blocks:
        # another process is still working, or was faster, committed, and removed the parts
        committed = context.artifacts.find(task.stage, task.key)
        if committed is None:
            log.info("this process has drawn its blocks; others are missing", done=len(parts), of=blocks)
        else:
            context.artifacts.clean(task.stage, task.key)  # a part that this process saved after that
        return committed
    return _commit(context, info, parts, device_name(device))


def draw(plan: Sequence[PlannedImage], generate: Generate, train: ImageSet, generator: Generator) -> DrawnBlock:
    """Draws the images of one block of the plan; `train` is the training split."""
    from shared.diffusion.generator import SampleRequest, sampling

    requests = [
        SampleRequest(
            train.labels[image.source],
            image.seed,
            None
            if image.start is None
            else decode(train.encoded[image.start], generator.resolution, train.paths[image.start]),
            image.strength,
            prompt_of(image, generate, train, generator),
            generate.negative_prompt,
        )
        for image in plan
    ]
    guidance, steps = sampling(generate, generator)
    noise = None
    if generate.starts_from_similar and generate.image_to_image is not None:
        share = generator.noise_share(generate.image_to_image.strength, steps)
        noise = [None if image.start is None else share for image in plan]
    drawn = generator.sample(requests, guidance, steps, generate.guidance_interval or (0.0, 1.0))
    return DrawnBlock(plan, [request.prompt for request in requests], guidance, drawn, noise)


@dataclass(frozen=True)
class DrawnBlock:
    """Holds the images of one block of the plan, as the generator draws them."""

    plan: Sequence[PlannedImage]
    prompts: Sequence[str | None]
    guidance: float
    pixels: NDArray[np.uint8]
    """Holds the images `[n, r, r, 3]`."""
    noise: Sequence[float | None] | None = None
    """Holds the share of noise on the image from which each starts, None for noise alone; None if images do not start from similar classes."""

    def images(self, train: ImageSet, resolution: int, model: str) -> ImageSet:
        """Returns them with labels and provenance, resized to the data set's `resolution`; `model` is the digest of the generator."""
        from shared.data.encode import image_format

        rows = [
            {
                "index": image.index, "pool": image.pool, "seed": image.seed, "filled": image.filled, "source": image.source,
                "prompt": prompt, "guidance": self.guidance,
                "strength": image.strength, "start": image.start, "model": model,
            }
            for image, prompt in zip(self.plan, self.prompts, strict=True)
        ]  # fmt: skip
        provenance = pa.Table.from_pylist(rows, COLUMNS)
        if self.noise is not None:
            provenance = provenance.append_column(SOFT_COLUMN, [pa.array(self.noise, SOFT_COLUMN.type)])
        suffix = {"PNG": "png", "JPEG": "jpg"}[image_format(resolution)]
        return ImageSet(
            train.schema,
            EncodedImages.of(encode(pixels, resolution) for pixels in self.pixels),
            [f"generated/{image.index:06d}.{suffix}" for image in self.plan],
            np.full(len(self.plan), "generated"),
            train.labels[[image.source for image in self.plan]],
            provenance,
        )


def prompt_of(image: PlannedImage, generate: Generate, train: ImageSet, generator: Generator) -> str:
    """Returns the prompt of an image, by the template of `generate.prompts` that its seed chooses, if there are any."""
    templates = generate.prompts
    template = templates[hashed_seed("prompt", image.seed) % len(templates)] if templates else None
    return generator.prompt(train.labels[image.source], template)


def encode(pixels: NDArray[np.uint8], resolution: int) -> bytes:
    """Returns an image `[h, w, 3]`, resized to `resolution` pixels per side, as `encode_image` encodes it."""
    from PIL import Image

    from shared.data.encode import encode_image

    image = Image.fromarray(pixels)
    if image.size != (resolution, resolution):
        image = image.resize((resolution, resolution), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return encode_image(image)


def _similar_starts(
    generate: Generate, train: ImageSet, resolution: int, context: Context, points: Sequence[StartingPoints]
) -> Starts:
    """Returns, by target, the rows of the classes that look most like the filled one."""
    import torch

    from shared.classifier.runtime import Runtime
    from shared.classifier.similar_classes import similar_starts

    assert generate.image_to_image is not None
    # on the CPU, as processes that share the images of one plan must choose alike whatever their devices
    runtime = Runtime(
        torch.device("cpu"), context.task.resources, stop=context.stop, cache=context.settings.cache / "features"
    )
    return similar_starts(points, generate.image_to_image.similar_classes, train, resolution, runtime)


def _make_blocks(
    config: GenerateConfig,
    context: Context,
    plan: Sequence[PlannedImage],
    train: ImageSet,
    resolution: int,
    blocks: int,
    device: torch.device,
) -> None:
    """Draws and saves this process's missing blocks; raises Stopped between two blocks."""
    from shared.diffusion.generator import BaseSource
    from shared.diffusion.load import load_generator

    task, settings = context.task, context.settings
    saved = context.artifacts.parts(task.stage, task.key)
    mine = range(settings.index, blocks, settings.count)
    missing = [block for block in mine if block not in saved]
    if not missing:
        return
    # workers whose trials need the same images have the same blocks; they collide least if each starts at a different one
    first = random.randrange(len(missing))
    missing = missing[first:] + missing[:first]
    tuned = context.input("finetune")
    files = {file.name: context.artifacts.fetch(file) for file in tuned.files}
    adapter = few_step_adapter(config, context)
    source = BaseSource(
        settings, context.scratch / "bucket", config.base, fetched_base(context), adapter, context.compiled
    )
    generator = load_generator(files, device, source)
    size = config.generate.batch_size
    images = [image for block in missing for image in plan[block * size : (block + 1) * size]]
    prompts = [prompt_of(image, config.generate, train, generator) for image in images]
    generator.prepare([config.generate.negative_prompt, *prompts])

    def save(block: int, drawn: DrawnBlock) -> None:
        (path,) = write_shards(drawn.images(train, resolution, tuned.digest), context.scratch, f"block-{block}")
        context.save_part(block, {path.name: path})
        path.unlink()

    # a block is encoded and uploaded while the next one is drawn, so that the GPU does not wait for it
    with AsyncCheckpointer() as saver:
        for block in log.progress(missing, "drawing", len(mine), "blocks", len(mine) - len(missing)):
            context.stop.raise_if_set()
            if context.artifacts.has_part(task.stage, task.key, block):
                continue
            if context.artifacts.find(task.stage, task.key) is not None:
                return
            part = plan[block * size : (block + 1) * size]
            saver.begin(partial(save, block, draw(part, config.generate, train, generator)))


def _commit(context: Context, info: DatasetInfo, parts: Mapping[int, Pointer], device: str) -> Manifest:
    """Joins the parts into shards of the usual size and commits them."""
    paths = [context.artifacts.fetch(file) for _, part in sorted(parts.items()) for file in part.files]
    images = read_shards(paths, info.schema_)
    assert images.extra is not None
    out = context.scratch / "out"
    out.mkdir()
    shards = write_shards(images, out, "images")
    filled: list[str] = images.extra["filled"].to_pylist()
    summary: dict[str, Any] = {
        "images": len(images),
        "classes": {name: filled.count(name) for name in dict.fromkeys(sorted(filled))},
    }
    return context.commit({path.name: path for path in shards}, summary, device)
