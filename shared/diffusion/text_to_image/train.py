"""Fine-tunes a text-to-image model on captioned images, by the same code on a CPU, on one GPU or on several."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from diffusers.training_utils import EMAModel
from numpy.typing import NDArray
from torch import nn

from shared.artifacts.checkpoints import AsyncCheckpointer, Checkpoints
from shared.config.generation import AnyPretrained
from shared.data.imageset import ImageSet
from shared.data.schema import LabelSchema
from shared.device import allow_fast_kernels
from shared.diffusion.balance import draw_probabilities
from shared.diffusion.generator import Finetuning
from shared.diffusion.text_to_image.autoencoder import Autoencoder
from shared.diffusion.text_to_image.base import Base, find_base
from shared.diffusion.text_to_image.batch_parts import parts_that_fit, split, without_effect
from shared.diffusion.text_to_image.caption import Captioner
from shared.diffusion.text_to_image.class_adapters import by_rarity, train_per_class
from shared.diffusion.text_to_image.class_tokens import ClassTokens
from shared.diffusion.text_to_image.compiled import compile_denoiser
from shared.diffusion.text_to_image.data import (
    Draw,
    Encoding,
    Latents,
    Texts,
    cache_latents,
    draw_batch,
)
from shared.diffusion.text_to_image.families.family import Family, find_family
from shared.diffusion.text_to_image.families.stable_diffusion import StableDiffusion
from shared.diffusion.text_to_image.families.table import check_class_tokens
from shared.diffusion.text_to_image.generator import DTYPES, LAYOUTS
from shared.diffusion.text_to_image.model import Denoiser, make_trainable, save_trained
from shared.diffusion.text_to_image.processes import Rank, processes
from shared.diffusion.text_to_image.state import Curve, TrainingState
from shared.errors import ConfigError, InputError, UnavailableError
from shared.log import Log
from shared.stop import StopSignal

GRADIENT_NORM = 1.0  # gradients are scaled down to this
LOOK_SECONDS = (
    1.0  # about as often a training looks at its losses and at signals, which makes the host wait for the GPU
)
MOST_STEPS_AT_ONCE = 16

log = Log("finetune")


@dataclass(frozen=True)
class Job:
    """Describes a fine-tuning to each of its processes."""

    config: AnyPretrained
    images: ImageSet
    captions: list[str]
    seed: int
    base: Base
    folder: Path
    """Points to the folder for files that the processes share."""
    resume: tuple[dict[str, Path], int] | None
    """Holds the files of the last checkpoint, and its step."""
    cpu: bool
    resolution: int
    """Gives the side of the images in pixels."""
    precision: str
    """Gives the precision of the training; always fp32 on a CPU."""
    tokens: ClassTokens | None = None
    """Names the tokens of classes whose embeddings are trained too."""
    compiled: Path | None = None
    """Points to the folder for the compiled network; None if it is not compiled."""


def finetune_text_to_image(config: AnyPretrained, finetuning: Finetuning) -> list[dict[str, float]]:
    """Trains on the captioned images (of the rare classes only, if the config says so) and writes the committed files into `out`.

    These are generator.json, curve.json and the weights (see `model.py`). Returns the curve: points of step, loss and
    seconds. If there is a checkpoint, the training continues from it, and on a CPU ends with the same weights, bit for bit, as without the
    interruption.

    Raises ConfigError, DataError (the base), UnavailableError (its bucket does not answer), Stopped, and InputError if the loss
    becomes NaN or the GPU's memory is too small.
    """
    images, out, device = finetuning.images, finetuning.out, finetuning.device
    tokens = ClassTokens.of_rare(images, finetuning.rare, config.class_tokens, config.phrases)
    caption = Captioner(images.schema, config.caption, tokens.captioned() if tokens else config.phrases)
    base = find_base(config.base_location, finetuning.base, LAYOUTS[config.generator])
    family = find_family(base)
    if tokens is not None:
        check_class_tokens(family.kind, base.name)
    columns = by_rarity(images, finetuning.rare) if config.per_class else []
    description = describe(config, family, images.schema, columns, tokens)
    resolution, precision = description["resolution"], description["precision"]
    family.check_resolution(resolution)
    family.check_precision(precision)
    out.mkdir(parents=True, exist_ok=True)

    def trained(images: ImageSet, seed: int, target: Path, checkpoints: Checkpoints) -> list[dict[str, float]]:
        saved = checkpoints.load()
        with tempfile.TemporaryDirectory(prefix="text-to-image-", dir=out.parent) as folder:
            job = Job(
                config=config,
                images=images,
                captions=[caption(labels) for labels in images.labels],
                seed=seed,
                base=base,
                folder=Path(folder),
                resume=(saved[0], int(saved[1]["step"])) if saved else None,
                cpu=device.type == "cpu",
                resolution=resolution,
                precision="fp32" if device.type == "cpu" else precision,
                tokens=tokens,
                compiled=finetuning.base.compiled,
            )
            with processes(job, train, finetuning.processes, job.folder, job.cpu) as rank:
                return train(job, rank, target, checkpoints, finetuning.stop)

    if columns:
        curve = train_per_class(columns, finetuning, trained)
    else:
        curve = trained(choose_images(images, finetuning.rare, config), finetuning.seed, out, finetuning.checkpoints)
    (out / "generator.json").write_text(json.dumps(description, indent=1))
    (out / "curve.json").write_text(json.dumps(curve))
    return curve


def describe(
    config: AnyPretrained,
    family: Family,
    schema: LabelSchema,
    adapters: Sequence[int] = (),
    tokens: ClassTokens | None = None,
) -> dict[str, Any]:
    """Returns the content of generator.json, which rebuilds the generator from the trained weights and the base, pinned by digests.

    `adapters` are the columns of the classes with adapters of their own, in the order in which an image takes them.
    """
    base = family.base
    own: dict[str, Any] = {"adapters": [schema.class_names[column] for column in adapters]} if adapters else {}
    if tokens is not None:
        own["class_tokens"] = {"classes": [schema.class_names[c] for c in tokens.columns], "count": tokens.count}
    return own | {
        "generator": config.generator,
        "schema": schema.model_dump(mode="json"),
        "resolution": config.resolution or family.kind.resolution,
        "base": base.name,
        "revision": base.revision,
        "base_files": base.digests(list(family.parts)),
        "method": config.method,
        "text_encoder": config.text_encoder,
        "caption": config.caption,
        "phrases": config.phrases,
        "precision": config.precision or family.kind.precisions[0],
    }


def train(
    job: Job,
    rank: Rank,
    out: Path | None = None,
    checkpoints: Checkpoints | None = None,
    stop: StopSignal | None = None,
) -> list[dict[str, float]]:
    """Trains, in each process. The first one gets `out`, `checkpoints` and `stop`, and is the only one that writes."""
    accelerator = Accelerator(
        mixed_precision="no" if job.precision == "fp32" else job.precision,
        gradient_accumulation_steps=job.config.gradient_accumulation,
        cpu=job.cpu,
    )
    allow_fast_kernels(accelerator.device)
    try:
        trainer = Trainer(job, rank, accelerator, stop)
        trainer.run(checkpoints)
        if out is not None:
            trainer.write(out)
        return trainer.state.curve.points
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"finetune: the GPU's memory is too small for {job.config.method} at resolution {job.resolution}, {job.precision}, also for a part "
            "of the batch; set gradient_checkpointing: true, method: lora, precision: bf16 or ema: 0, or lower finetune.batch_size (and raise "
            "gradient_accumulation) if other work shares the GPU"
        ) from error
    finally:
        # accelerate's state is global; it is reset for a later fine-tuning or sampling in this process
        accelerator.free_memory()
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


class Trainer:
    """Holds one process's part of the training: model, optimizer and cached inputs."""

    def __init__(self, job: Job, rank: Rank, accelerator: Accelerator, stop: StopSignal | None) -> None:
        self.job, self.rank, self.accelerator, self.stop = job, rank, accelerator, stop
        self.writing_seconds = 0.0
        """Counts the seconds that writing the last checkpoint to local disk took."""
        config, device = job.config, accelerator.device
        self.family = find_family(job.base)
        self.process = self.family.process(job.resolution)
        self.probabilities = draw_probabilities(job.images.labels, config.class_power)
        self.texts = self._encode_captions(device)
        self.latents, self.autoencoder = self._encode_images(device)
        self.denoiser = self._load(device)
        trained = self.denoiser.trained()
        ema = EMAModel(trained.values(), decay=config.ema, foreach=device.type == "cuda") if config.ema > 0 else None
        optimizer = torch.optim.AdamW(self._groups(trained), lr=config.learning_rate, fused=device.type == "cuda")
        self.state = TrainingState(trained, optimizer, ema, accelerator.scaler, Curve(config.steps))
        self.model, self.optimizer = accelerator.prepare(self.denoiser, optimizer)
        if job.resume is not None:
            self.state.load(*job.resume)
            log.info("continuing from a checkpoint", step=self.state.step)
        self.parts = 1
        """Counts the parts into which this process's share of a batch is divided, as the memory is too small for the whole."""
        self._divide()
        if job.compiled is not None:
            # a compiled network needs other memory
            gain = compile_denoiser(self.denoiser.model, self._try_step, job.compiled, self._divide)
            if rank.number == 0:
                gain.tell(log, "step", config.steps - self.state.step)

    def _groups(self, trained: Mapping[str, nn.Parameter]) -> list[dict[str, Any]]:
        """Returns the groups of parameters with their learning rates after the warm-up; the embeddings of tokens, which come last, have their own."""
        config, values = self.job.config, [*trained.values()]
        if self.job.tokens is None:
            return [{"params": values, "full_rate": config.learning_rate}]
        *others, embeddings = values
        return [
            {"params": others, "full_rate": config.learning_rate},
            {"params": [embeddings], "full_rate": config.class_tokens_learning_rate},
        ]

    def _encode_captions(self, device: torch.device) -> Texts:
        """Returns the captions as the denoiser or a trained text encoder reads them; frozen text encoders are freed after that."""
        job, family = self.job, self.family
        precise = job.precision == "fp32"
        if isinstance(family, StableDiffusion) and (job.config.text_encoder or job.tokens):
            tokenizer = family.load("tokenizer")
            encode = partial(family.tokenize, job.tokens.extend_tokenizer(tokenizer) if job.tokens else tokenizer)
        else:
            encode = partial(family.encode, family.load_encoders(device, family.training_encoder_dtype(precise)))
        kept = torch.float32 if precise else family.kept
        return Texts.build(job.captions, encode, family.encode_batch, kept)

    def _encode_images(self, device: torch.device) -> tuple[Latents, Autoencoder]:
        """Returns the latents of all images, and the VAE that made them, which is freed."""
        job, family = self.job, self.family
        autoencoder = family.autoencoder(family.autoencoder_dtype(DTYPES[job.precision]))
        autoencoder.vae.to(device)
        kept = torch.float32 if job.precision == "fp32" else torch.float16
        encoding = Encoding(autoencoder, family.vae_shape(job.resolution), job.resolution, job.config.flip, kept)
        latents = cache_latents(job.images, encoding, job.folder, self.rank, self._check)
        autoencoder.free()
        return latents, autoencoder

    def _load(self, device: torch.device) -> Denoiser:
        """Returns the denoiser, and the text encoder if it is trained too, ready for training."""
        config, family = self.job.config, self.family
        lora = config.method == "lora"
        dtype = DTYPES[self.job.precision] if lora else torch.float32
        tokens = self.job.tokens
        text = family.load("text_encoder", dtype) if config.text_encoder or tokens else None
        if tokens is not None:
            tokenizer = family.load("tokenizer")
            family.check_tokenizer(tokenizer, text, "text_encoder")
            text = tokens.extend_encoder(text, len(tokenizer), tokens.first_embeddings(tokenizer, text))
        denoiser = Denoiser(family, family.load(family.denoiser, dtype), text, tokens_only=tokens is not None)
        make_trainable(denoiser, config.rank if lora else None, self.job.seed, config.gradient_checkpointing)
        denoiser.to(device)
        if device.type == "cuda" and family.denoiser == "unet":
            denoiser.model.to(memory_format=torch.channels_last)
        return denoiser

    def _divide(self) -> None:
        """Divides batches as the memory asks for."""
        accumulation = self.job.config.gradient_accumulation
        self.parts = parts_that_fit(self._share, accumulation, self.state, self.accelerator, self._try)
        self.accelerator.gradient_accumulation_steps = accumulation * self.parts

    def _try_step(self) -> None:
        """Computes the gradients of a step, which changes nothing."""
        with without_effect(self.state, self.accelerator.device):
            for _, part in product(range(self.job.config.gradient_accumulation), split(self._share, self.parts)):
                self._try(part)

    def _try(self, part: slice) -> None:
        """Computes the gradient for a part of a batch, whose images all have the longest caption, as these take the most memory."""
        torch.autograd.backward(self._loss(self.denoiser, self._longest(self._draw(self.state.step + 1)), part))

    def _longest(self, draw: Draw) -> Draw:
        """Returns a draw that has an image with the longest caption in place of each."""
        sizes = [sum(value.numel() for value in condition.values()) for condition in self.texts.conditions]
        row = int(np.argmax([sizes[position] for position in self.texts.of_image]))
        return replace(draw, rows=np.full_like(draw.rows, row), captionless=np.zeros_like(draw.captionless))

    def _check(self) -> None:
        """Raises the error that ended another process, or Stopped."""
        self.rank.check()
        if self.stop is not None:
            self.stop.raise_if_set()

    def run(self, checkpoints: Checkpoints | None) -> None:
        """Runs the remaining steps; raises Stopped in the process that got the signal, after a checkpoint if the grace period suffices."""
        with AsyncCheckpointer() as keeper:
            self._run(checkpoints, keeper)

    def _run(self, checkpoints: Checkpoints | None, keeper: AsyncCheckpointer) -> None:
        config, state, start = self.job.config, self.state, time.monotonic()
        left = range(state.step + 1, config.steps + 1)
        losses: list[torch.Tensor] = []
        steps_at_once, looked = 1, start
        for step in log.progress(left, f"fine-tuning ({config.method})", config.steps, "steps", state.step):
            self.rank.check()
            losses.append(self._step(step))
            if state.ema is not None:
                state.ema.step(state.trained.values())
            state.step = step
            due = step == config.steps or step % config.checkpoint_every == 0
            if len(losses) < steps_at_once and not due:
                continue
            means, seconds, stopped = self._agree(losses, time.monotonic() - looked, bool(self.stop))
            steps_at_once, looked = self._steps_at_once(len(means), seconds), time.monotonic()
            for finished, loss in enumerate(means, step - len(means) + 1):
                if not math.isfinite(loss):
                    raise InputError(
                        f"finetune: the loss became {loss} at step {finished}; lower finetune.learning_rate "
                        f"({config.learning_rate:g}) or use precision bf16 or fp32, not {self.job.precision}"
                    )
                state.curve.add(finished, loss, time.monotonic() - start)
            losses = []
            busy = keeper.busy()
            if step == config.steps:
                return
            if stopped:
                self._end(checkpoints, keeper, start)
                return
            if checkpoints is not None and step % config.checkpoint_every == 0 and not busy:
                self._keep(checkpoints, keeper, start)

    def _end(self, checkpoints: Checkpoints | None, keeper: AsyncCheckpointer, start: float) -> None:
        """Ends the training after a signal: saves a last checkpoint if the grace period suffices, and raises Stopped in the first process."""
        if self.stop is None:
            return
        try:
            keeper.wait()
        except UnavailableError as error:
            log.warning("a checkpoint was not kept; the newest one is tried", reason=str(error))
        if checkpoints is not None and self.writing_seconds + keeper.seconds < self.stop.seconds_left():
            self._keep(checkpoints, keeper, start)
            keeper.wait()
        self.stop.raise_if_set()

    def _keep(self, checkpoints: Checkpoints, keeper: AsyncCheckpointer, start: float) -> None:
        """Writes a checkpoint to the local disk, and uploads it in the background."""
        begun, step = time.monotonic(), self.state.step
        files = self.state.write(self.job.folder / "checkpoint", begun - start)
        self.writing_seconds = time.monotonic() - begun

        def upload() -> None:
            checkpoints.save(files, step=step)
            log.info("checkpoint kept", step=step, seconds=round(time.monotonic() - begun, 1))

        keeper.begin(upload)

    def _step(self, step: int) -> torch.Tensor:
        """Makes one optimizer step, and returns the mean loss of this process's share, a scalar."""
        config = self.job.config
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_rate"] * min(1.0, step / max(config.warmup_steps, 1))
        draw = self._draw(step)
        losses = []
        for batch, part in product(range(config.gradient_accumulation), split(self._share, self.parts)):
            first = batch * config.batch_size + self.rank.number * self._share
            images = slice(first + part.start, first + part.stop)
            with self.accelerator.accumulate(self.model):
                # a part weighs by its images, so that the mean is that of the batch if parts are unequal
                loss = self._loss(self.model, draw, images) * ((part.stop - part.start) * self.parts / self._share)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), GRADIENT_NORM)
                self.optimizer.step()
                self.optimizer.zero_grad()
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    @property
    def _share(self) -> int:
        """Returns the number of images of a batch that this process computes."""
        return self.job.config.batch_size // self.rank.count

    def _draw(self, step: int) -> Draw:
        """Returns the random choices of a step."""
        config = self.job.config
        return draw_batch(
            self.job.seed, step, self.probabilities, config.batch_size * config.gradient_accumulation,
            self.latents.mean.shape[2:], self.process.draw_levels, config.flip, config.condition_dropout,
        )  # fmt: skip

    def _loss(self, model: nn.Module, draw: Draw, part: slice) -> torch.Tensor:
        """Returns the mean loss over a part of the drawn images, a scalar."""
        device = self.accelerator.device
        latents = self.autoencoder.normalise(self.latents.sample(draw, part).to(device))
        noise, level = draw.noise[part].to(device).view_as(latents), draw.levels[part].to(device)
        conditions = self.texts.take(draw, part, device)
        predicted = model(self.process.add_noise(latents, noise, level), level, conditions)
        return self.process.loss(predicted, latents, noise, level, self.job.config.min_snr)

    def _agree(self, losses: Sequence[torch.Tensor], seconds: float, stopped: bool) -> tuple[list[float], float, bool]:
        """Returns the mean losses and seconds over the processes, and whether any was told to stop, so that all stop after the same step.

        The host waits for the device here, and only here.
        """
        loss = torch.stack(list(losses)).float()
        mine = torch.cat([loss, torch.tensor([seconds, float(stopped)], device=loss.device)])
        *means, mean_seconds, stops = self.accelerator.reduce(mine, "mean").tolist()
        return means, mean_seconds, stops > 0

    @staticmethod
    def _steps_at_once(steps: int, seconds: float) -> int:
        """Returns how many steps to start before the next look at the losses and signals, if the last `steps` took `seconds`."""
        return max(1, min(MOST_STEPS_AT_ONCE, int(LOOK_SECONDS * steps / max(seconds, 1e-9))))

    def write(self, out: Path) -> None:
        """Writes the trained weights, averaged if the config says so."""
        if self.state.ema is not None:
            self.state.ema.copy_to(self.state.trained.values())
        save_trained(self.denoiser, self.job.config.method, out)
        if self.job.tokens is not None:
            self.job.tokens.save(self.denoiser.text_encoder, out)


def choose_images(images: ImageSet, rare: NDArray[np.int64], config: AnyPretrained) -> ImageSet:
    """Returns the images to train on, by `finetune.images`; raises ConfigError if none has a rare class and only those are wanted."""
    if config.images == "all":
        return images
    rows = np.flatnonzero((images.labels[:, rare] == 1).any(axis=1))
    if not len(rows):
        raise ConfigError(
            "finetune.images: rare, but no training image has a rare class; raise rare.below, name rare.classes, or set it to all"
        )
    return images.take(rows)
