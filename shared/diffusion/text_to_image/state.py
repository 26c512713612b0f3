"""Saves and loads the state of a fine-tuning between two steps, as tensors and JSON, so that it can be resumed bit for bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from shared.errors import DataError
from shared.tensors import read_tensors, save_tensors

CURVE_POINTS = 1000  # the most points of the curve; longer trainings average over several steps per point


@dataclass
class Curve:
    """Collects the losses, averaged over several steps per point, and the seconds since the training began."""

    steps: int
    points: list[dict[str, float]] = field(default_factory=list)
    pending: list[float] = field(default_factory=list)
    earlier_seconds: float = 0.0
    """Counts the seconds of earlier, interrupted runs."""

    def add(self, step: int, loss: float, seconds: float) -> None:
        """Adds the loss of `step` (counted from 1), `seconds` after the start of this run."""
        self.pending.append(loss)
        if len(self.pending) >= -(-self.steps // CURVE_POINTS) or step == self.steps:
            mean = sum(self.pending) / len(self.pending)
            self.points.append({"step": step, "loss": mean, "seconds": round(self.earlier_seconds + seconds, 3)})
            self.pending = []


@dataclass
class TrainingState:
    """Holds the whole state of a training between two steps."""

    trained: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    ema: EMAModel | None
    scaler: torch.amp.GradScaler | None
    curve: Curve
    step: int = 0
    """Counts the finished optimizer steps."""

    def write(self, folder: Path, seconds: float) -> dict[str, Path]:
        """Writes a checkpoint into `folder`, and returns its files by name; `seconds` is the time since the start of this run."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Mapping[str, torch.Tensor]] = {
            "weights.safetensors": self.trained,
            "optimizer.safetensors": {
                f"{name}|{key}": value
                for name, parameter in self.trained.items()
                for key, value in self.optimizer.state[parameter].items()
            },
        }
        if self.ema is not None:
            tensors["average.safetensors"] = dict(zip(self.trained, self.ema.shadow_params, strict=True))
        for name, values in tensors.items():
            save_tensors(values, folder / name)
        state = {
            "points": self.curve.points,
            "pending": self.curve.pending,
            "seconds": self.curve.earlier_seconds + seconds,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
        }
        (folder / "state.json").write_text(json.dumps(state))
        return {name: folder / name for name in (*tensors, "state.json")}

    def load(self, files: Mapping[str, Path], step: int) -> None:
        """Loads a checkpoint; raises DataError if it belongs to another model."""
        state: dict[str, Any] = json.loads(files["state.json"].read_text())
        self._copy(self.trained, read_tensors(files, "weights.safetensors", "finetune"))
        self._load_optimizer(read_tensors(files, "optimizer.safetensors", "finetune"))
        if self.ema is not None:
            average = dict(zip(self.trained, self.ema.shadow_params, strict=True))
            self._copy(average, read_tensors(files, "average.safetensors", "finetune"))
            self.ema.optimization_step = step
        if self.scaler is not None and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.curve.points, self.curve.pending = state["points"], state["pending"]
        self.curve.earlier_seconds = state["seconds"]
        self.step = step

    @torch.no_grad()
    def _copy(self, into: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
        for name, target in into.items():
            if name not in tensors or tensors[name].shape != target.shape:
                raise DataError(f"checkpoint: has no {name} of shape {tuple(target.shape)}; use --rerun finetune")
            target.copy_(tensors[name])

    def _load_optimizer(self, tensors: Mapping[str, torch.Tensor]) -> None:
        state: dict[int, dict[str, torch.Tensor]] = {}
        position = {name: i for i, name in enumerate(self.trained)}
        for key, value in tensors.items():
            name, _, part = key.rpartition("|")
            parameter = self.trained[name].data
            # in the parameter's memory format, as the fused optimizer requires
            state.setdefault(position[name], {})[part] = (
                torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
            )
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
