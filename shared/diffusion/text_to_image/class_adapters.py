"""Trains adapters for one rare class after the other, so that a process that is killed loses no class that is done."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.artifacts.checkpoints import Checkpoints, Values
from shared.config.seeds import hashed_seed
from shared.data.imageset import ImageSet
from shared.data.schema import class_counts
from shared.diffusion.generator import Finetuning
from shared.diffusion.text_to_image.model import LORA, class_lora
from shared.errors import ConfigError
from shared.log import Log

DONE = "done.json"
"""Names the file of a checkpoint with the curve of the classes that are done."""
Curve = list[dict[str, float]]
TrainClass = Callable[[ImageSet, int, Path, Checkpoints], Curve]
"""Trains on images, with a seed, into a folder, with checkpoints, and returns the curve."""

log = Log("finetune")


def by_rarity(images: ImageSet, rare: NDArray[np.int64]) -> list[int]:
    """Returns the columns of the rare classes with images, the rarest first; raises ConfigError if there is none."""
    counts = class_counts(images.labels)
    columns = sorted((int(c) for c in rare if counts[c]), key=lambda c: (int(counts[c]), c))
    if not columns:
        raise ConfigError(
            "finetune.per_class: true, but no training image has a rare class; raise rare.below, name rare.classes, or set it to false"
        )
    return columns


def train_per_class(columns: Sequence[int], finetuning: Finetuning, train: TrainClass) -> Curve:
    """Trains adapters for each class, writes `lora-<column>.safetensors` per class into `out`, and returns all curves as one.

    It continues in the class of the checkpoint, with its state. Raises what `train` raises.
    """
    images, out = finetuning.images, finetuning.out
    with tempfile.TemporaryDirectory(prefix="classes-", dir=out.parent) as folder:
        progress = _Progress.open(finetuning.checkpoints, Path(folder))
        for number, column in enumerate(columns[progress.done :], progress.done + 1):
            name = images.schema.class_names[column]
            own = images.take(np.flatnonzero(images.labels[:, column] == 1))
            log.info(f"training adapters for {name}", number=number, of=len(columns), images=len(own))
            target = Path(folder) / f"class-{column}"
            target.mkdir()
            curve = train(own, hashed_seed("adapters", finetuning.seed, name), target, progress)
            (target / LORA).rename(target / class_lora(column))
            progress.finish(curve, target / class_lora(column))
        for name, path in progress.adapters.items():
            (out / name).write_bytes(path.read_bytes())
    return progress.curve


@dataclass
class _Progress:
    """Keeps the checkpoints of the class in work beside the adapters of the classes that are done."""

    kept: Checkpoints
    folder: Path
    adapters: dict[str, Path]
    """Maps the names of the files of the classes that are done to the files."""
    curve: Curve
    state: tuple[dict[str, Path], Values] | None
    """Holds the state of the class in work, if it was interrupted."""

    @classmethod
    def open(cls, checkpoints: Checkpoints, folder: Path) -> _Progress:
        """Returns what the last checkpoint holds."""
        saved = checkpoints.load()
        if saved is None:
            return cls(checkpoints, folder, {}, [], None)
        files, values = saved
        done = json.loads(files[DONE].read_text())
        adapters = {name: files[name] for name in done["adapters"]}
        state = {name: path for name, path in files.items() if name != DONE and name not in adapters}
        return cls(checkpoints, folder, adapters, done["curve"], (state, values) if state else None)

    @property
    def done(self) -> int:
        """Counts the classes that are done."""
        return len(self.adapters)

    def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
        """Replaces the checkpoint by the state of the class in work and all that is done."""
        done = self.folder / DONE
        done.write_text(json.dumps({"adapters": [*self.adapters], "curve": self.curve}))
        self.kept.save({**self.adapters, **files, DONE: done}, **values)

    def load(self) -> tuple[dict[str, Path], Values] | None:
        """Returns the state of the class in work."""
        return self.state

    def finish(self, curve: Curve, adapters: Path) -> None:
        """Adds a class to those that are done, and saves them."""
        steps, seconds = (self.curve[-1]["step"], self.curve[-1]["seconds"]) if self.curve else (0, 0.0)
        self.curve += [
            {**point, "step": steps + point["step"], "seconds": round(seconds + point["seconds"], 3)} for point in curve
        ]
        self.adapters[adapters.name] = adapters
        self.state = None
        self.save({}, step=0)
