"""Trains the pixel generator on all classes jointly; on a CPU it can be resumed bit for bit.

Every random choice of a step follows from (seed, step) alone. A checkpoint therefore holds no random state: only the weights, their
average, and the optimizer's moments.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel, compute_density_for_timestep_sampling

from shared.artifacts.checkpoints import Checkpoints
from shared.config.generation import PixelFinetune
from shared.data.imageset import ImageSet
from shared.diffusion.balance import draw_probabilities
from shared.diffusion.generator import Finetuning
from shared.diffusion.pixel.model import TRAIN_TIMESTEPS, WEIGHTS, build_network, describe
from shared.errors import InputError
from shared.log import Log
from shared.stop import StopSignal
from shared.tensors import check_shapes, read_tensors, save_tensors

log = Log("finetune")

CURVE_POINTS = 200  # the most points of the curve; each is the mean loss of the steps since the last one
GRADIENT_NORM = 1.0
STATE = "state.safetensors"
PROGRESS = "progress.json"
MOMENTS = ("exp_avg", "exp_avg_sq")
"""Names the state that AdamW keeps per parameter, beside the number of steps."""


def finetune_pixel(config: PixelFinetune, finetuning: Finetuning) -> list[dict[str, float]]:
    """Trains on all classes and writes generator.json, model.safetensors and curve.json into `out`.

    Returns the curve: points of step, loss (mean squared error of the flow) and seconds. If there is a checkpoint, the training continues
    from it, and on a CPU ends with the same weights, bit for bit, as without the interruption. Raises InputError if the loss is not a
    finite number, and Stopped, after a checkpoint if the grace period suffices for one.
    """
    images, out = finetuning.images, finetuning.out
    trainer = PixelTrainer(config, images, finetuning.seed, finetuning.device)
    out.mkdir(parents=True, exist_ok=True)
    trainer.resume(finetuning.checkpoints)
    trainer.run(finetuning.checkpoints, finetuning.stop, out)
    save_tensors(trainer.averaged(), out / WEIGHTS)
    (out / "curve.json").write_text(json.dumps(trainer.curve))
    (out / "generator.json").write_text(json.dumps(describe(images.schema, config.resolution, config.width)))
    return trainer.curve


class PixelTrainer:
    """Holds the network, its average, the optimizer and the decoded pixels of one training."""

    def __init__(self, config: PixelFinetune, images: ImageSet, seed: int, device: torch.device) -> None:
        self.config, self.seed, self.device = config, seed, device
        self.step = 0
        """Counts the finished optimizer steps."""
        self.curve: list[dict[str, float]] = []
        self._pending: list[float] = []
        self._earlier_seconds = 0.0
        self._started = time.monotonic()
        # decoded once, with 8 bits per channel: 3 kB per image of 32 x 32 pixels
        self._pixels = torch.from_numpy(images.pixels(config.resolution)).permute(0, 3, 1, 2).contiguous().to(device)
        self._labels = torch.from_numpy(images.labels).to(device)
        self._cumulative = np.cumsum(draw_probabilities(images.labels, config.class_power))
        self.network = build_network(images.schema, config.resolution, config.width, seed).to(device)
        if device.type == "cuda":
            self.network.to(memory_format=torch.channels_last)
        self._parameters = dict(self.network.named_parameters())
        self._ema = EMAModel(self._parameters.values(), decay=config.ema, foreach=True)
        self._optimizer = torch.optim.AdamW(self._parameters.values(), lr=config.learning_rate, fused=True)

    # -- steps

    def run(self, checkpoints: Checkpoints, stop: StopSignal, folder: Path) -> None:
        """Runs the remaining steps; raises InputError, and Stopped after a last checkpoint."""
        left = range(self.step + 1, self.config.steps + 1)
        checkpoint_seconds = 0.0
        for step in log.progress(left, "training the pixel generator", self.config.steps, "steps", self.step):
            self._record(self._advance(step).item(), step)
            stopped, due = bool(stop), step % self.config.checkpoint_every == 0 and step < self.config.steps
            if due or (stopped and checkpoint_seconds < stop.seconds_left()):
                begun = time.monotonic()
                self._save(checkpoints, folder)
                checkpoint_seconds = time.monotonic() - begun
                log.info("checkpoint kept", step=step)
            if stopped:
                stop.raise_if_set()

    def _advance(self, step: int) -> torch.Tensor:
        """Makes one optimizer step, and returns the loss, a scalar on the device."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._rate(step)
        images, labels, noise, sigmas = self._draw(step)
        share = sigmas.view(-1, 1, 1, 1)
        noisy = (1 - share) * images + share * noise
        if self.device.type == "cuda":
            noisy = noisy.contiguous(memory_format=torch.channels_last)
        # float32 on a CPU: autocast is many times slower on one without bfloat16 instructions
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            flow = self.network(noisy, sigmas * TRAIN_TIMESTEPS, labels)
        loss = torch.nn.functional.mse_loss(flow.float(), noise - images)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters.values(), GRADIENT_NORM)
        self._optimizer.step()
        self._ema.step(self._parameters.values())
        return loss.detach()

    def _rate(self, step: int) -> float:
        """Returns the share of the learning rate at a step, counted from 1: a linear warm-up, then a cosine decay to 0."""
        warmup = min(self.config.warmup_steps, self.config.steps // 2)
        if step <= warmup:
            return step / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (self.config.steps - warmup + 1)))

    def _draw(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns a step's images `[b, 3, r, r]` in -1 to 1, labels `[b, C]`, noise and sigmas `[b]`, from (seed, step) alone."""
        size, rng = self.config.batch_size, np.random.default_rng([self.seed, step])
        drawn = np.searchsorted(self._cumulative, rng.random(size) * self._cumulative[-1], side="right")
        rows = torch.from_numpy(drawn).to(self.device)
        mirrored = torch.from_numpy(rng.random(size) < (0.5 if self.config.flip else 0.0)).to(self.device)
        unlabelled = torch.from_numpy(rng.random(size) < self.config.condition_dropout).to(self.device)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        pixels = self._pixels[rows].float() / 127.5 - 1
        images = torch.where(mirrored.view(-1, 1, 1, 1), pixels.flip(3), pixels)
        labels = self._labels[rows].masked_fill(unlabelled.view(-1, 1), -1)
        # more from the middle of the schedule, where there is most to learn (Esser et al. 2024)
        sigmas = compute_density_for_timestep_sampling("logit_normal", size, 0.0, 1.0, generator=generator)
        noise = torch.randn(images.shape, generator=generator)
        return images, labels, noise.to(self.device), sigmas.to(self.device)

    def _record(self, loss: float, step: int) -> None:
        """Adds the loss of a finished step to the curve; raises InputError if it is not a finite number."""
        if not math.isfinite(loss):
            raise InputError(
                f"finetune: the loss became {loss} at step {step}; lower finetune.learning_rate ({self.config.learning_rate:g})"
            )
        self.step = step
        self._pending.append(loss)
        if len(self._pending) >= -(-self.config.steps // CURVE_POINTS) or step == self.config.steps:
            mean = sum(self._pending) / len(self._pending)
            self.curve.append({"step": step, "loss": mean, "seconds": round(self._seconds(), 3)})
            self._pending = []

    def _seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._started

    # -- state

    def averaged(self) -> dict[str, torch.Tensor]:
        """Returns the exponential moving average of the weights, by name."""
        return dict(zip(self._parameters, self._ema.shadow_params, strict=True))

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Returns the whole state between two steps by name, `part|parameter`, without copying it."""
        tensors = {f"weights|{name}": p.data for name, p in self._parameters.items()}
        tensors |= {f"average|{n}": t for n, t in zip(self._parameters, self._ema.shadow_params, strict=True)}
        for part in MOMENTS:
            for name, parameter in self._parameters.items():
                moment = self._optimizer.state[parameter].get(part, parameter.data)  # a fresh optimizer has none yet
                tensors[f"{part}|{name}"] = moment
        return tensors

    def _save(self, checkpoints: Checkpoints, folder: Path) -> None:
        """Writes the state into a folder beside the results, and saves it as the checkpoint."""
        place = folder.parent / "checkpoint"
        place.mkdir(exist_ok=True)
        save_tensors(self._tensors(), place / STATE)
        progress = {"curve": self.curve, "pending": self._pending, "seconds": self._seconds()}
        (place / PROGRESS).write_text(json.dumps(progress))
        checkpoints.save({name: place / name for name in (STATE, PROGRESS)}, step=self.step)

    def resume(self, checkpoints: Checkpoints) -> None:
        """Loads the last checkpoint if there is one; raises DataError if it belongs to another model."""
        found = checkpoints.load()
        if found is None:
            return
        files, values = found
        self.step = int(values["step"])
        saved = read_tensors(files, STATE, "finetune")
        check_shapes(f"checkpoint {STATE}", saved, self._tensors(), "finetune")
        with torch.no_grad():
            for name, target in self._tensors().items():
                if name.split("|")[0] not in MOMENTS:
                    target.copy_(saved[name])
        self._ema.optimization_step = self.step
        moments = {
            number: {
                "step": torch.tensor(float(self.step)),
                # in the parameter's memory format, as the fused optimizer requires
                **{part: torch.empty_like(parameter.data).copy_(saved[f"{part}|{name}"]) for part in MOMENTS},
            }
            for number, (name, parameter) in enumerate(self._parameters.items())
        }
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        progress: dict[str, Any] = json.loads(files[PROGRESS].read_text())
        self.curve, self._pending = progress["curve"], progress["pending"]
        self._earlier_seconds = progress["seconds"]
        log.info("continuing from a checkpoint", step=self.step)
