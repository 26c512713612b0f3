"""Saves the state of a training between two epochs as safetensors and JSON: an interrupted run continues from it, bit for bit."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from shared.artifacts.checkpoints import Checkpoints
from shared.artifacts.disk import room_errors
from shared.classifier.model import Network
from shared.tensors import save_tensors

STATE, PROGRESS = "state.safetensors", "progress.json"


@dataclass(frozen=True)
class EpochRecord:
    """Holds the scores of one epoch, NaN if they are not defined (`val_rare_macro_f1` without rare classes)."""

    epoch: int
    """Gives the number of the epoch from 0; epochs of the last-layer refit are counted after the others."""
    lr: float
    """Gives the learning rate at the last step of the epoch."""
    train_loss: float
    train_accuracy: float
    """Gives the mean over the label groups on the epoch's own images, as they were augmented and before the step that learns from them, without
    labels that the loss masks; with mixup, by the labels of the image with the greater share."""
    val_loss: float
    val_accuracy: float
    val_macro_f1: float
    val_rare_macro_f1: float
    seconds: float


def deployed(history: Sequence[EpochRecord], epochs: int) -> Sequence[EpochRecord]:
    """Returns the epochs of the classifier that would be deployed: those of the refit after the `epochs` of training, if there is one.

    An objective averages over these alone, since a classifier before its refit is another one.
    """
    return history[epochs:] or history


def records_json(history: list[EpochRecord]) -> list[dict[str, float | None]]:
    """Returns records for a JSON file, with null for NaN, which JSON does not have."""
    return [{k: None if math.isnan(v) else v for k, v in asdict(record).items()} for record in history]


def records_from_json(rows: list[dict[str, Any]]) -> list[EpochRecord]:
    """Returns the records from what `records_json` returned."""
    defined: list[dict[str, Any]] = [{k: math.nan if v is None else v for k, v in row.items()} for row in rows]
    return [EpochRecord(**row) for row in defined]


@dataclass(frozen=True)
class Snapshot:
    """Holds the state that the next epoch needs beside the data, as copies: training continues while they are saved."""

    tensors: dict[str, Tensor]
    history: list[EpochRecord]
    scaler: Mapping[str, Any]

    @classmethod
    def take(
        cls,
        network: Network,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        history: list[EpochRecord],
    ) -> Snapshot:
        """Copies the trained weights and buffers, the optimizer's state and the history into CPU memory (page-locked if from a GPU)."""
        tensors = {f"network/{name}": tensor for name, tensor in network.trained_state().items()}
        for position, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{position}/{name}": torch.as_tensor(value) for name, value in state.items()}
        copies = {name: tensor.detach().to("cpu", non_blocking=True, copy=True) for name, tensor in tensors.items()}
        for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
            torch.cuda.current_stream(device).synchronize()
        return cls(copies, list(history), scaler.state_dict())

    def save(self, checkpoints: Checkpoints) -> None:
        """Saves the snapshot as the checkpoint, in place of the last one."""
        with tempfile.TemporaryDirectory() as folder, room_errors(Path(folder)):
            state, progress = Path(folder) / STATE, Path(folder) / PROGRESS
            save_tensors(self.tensors, state)
            progress.write_text(json.dumps({"history": records_json(self.history), "scaler": dict(self.scaler)}))
            checkpoints.save({STATE: state, PROGRESS: progress}, epoch=len(self.history))

    @classmethod
    def load(cls, checkpoints: Checkpoints) -> Snapshot | None:
        """Returns the snapshot of the last checkpoint, or None."""
        found = checkpoints.load()
        if found is None:
            return None
        progress = json.loads(found[0][PROGRESS].read_text())
        return cls(load_file(found[0][STATE]), records_from_json(progress["history"]), progress["scaler"])

    def restore_network(self, network: Network) -> None:
        """Restores the weights and buffers."""
        state = {k.removeprefix("network/"): v for k, v in self.tensors.items() if k.startswith("network/")}
        network.load_state_dict(state, strict=False)

    def restore_optimizer(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
        """Restores the state of the optimizer and the loss scaler."""
        states: dict[int, dict[str, Tensor]] = {}
        for key, tensor in self.tensors.items():
            if key.startswith("optimizer/"):
                _, position, name = key.split("/")
                states.setdefault(int(position), {})[name] = tensor
        optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
        if self.scaler:
            scaler.load_state_dict(dict(self.scaler))
