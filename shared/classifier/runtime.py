"""Describes where a stage trains classifiers: the device, its memory, and the places of checkpoints and caches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from shared.artifacts.checkpoints import Checkpoints, NoCheckpoints
from shared.config.search import Resources
from shared.stop import StopSignal


@dataclass(frozen=True)
class Runtime:
    """Holds what a training needs beside its configuration and its images."""

    device: torch.device
    resources: Resources
    checkpoints: Callable[[str], Checkpoints] = lambda _: NoCheckpoints()
    """Returns the place for the checkpoint of a name."""
    stop: StopSignal = field(default_factory=StopSignal)
    cache: Path | None = None
    """Points to a node-local folder for the frozen backbone's outputs; without one they are not shared between processes."""
    fetched: Mapping[str, Path] = field(default_factory=dict)
    """Maps timm models to weights from the hub."""
    memory: int | None = None
    """Gives the bytes of memory that the process may take; None is what the machine or container has."""
