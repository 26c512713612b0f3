"""What does not change between epochs is computed once: decoded pixels, and the output of the network's frozen part.

Both are arrays in memory, or beyond the budget in an unnamed temporary file that vanishes with the process. The frozen part's output
is kept on local disk as well, in blocks named by everything that it depends on, so that trials, seeds and processes on one node share it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import timm
import torch
from numpy.typing import NDArray

from shared.classifier.augment import augment
from shared.classifier.model import Trunk
from shared.classifier.precision import autocast, images_on
from shared.classifier.rng import torch_generator
from shared.config.training import Augmentation
from shared.context import StopSignal
from shared.data.imageset import ImageSet, decode
from shared.log import Log

BLOCK = 256  # images a block: seconds of work on a CPU, so an interruption loses little
CPU_BATCH, GPU_BATCH = 32, 256

log = Log("classifier")


@dataclass(frozen=True)
class View:
    """One fixed augmentation of an image."""

    augmentation: Augmentation = "none"
    erasing: float = 0.0
    number: int = 0
    """Which of several; odd ones are mirrored, so that two views hold both sides."""


PLAIN = View()


def allocate(shape: tuple[int, ...], dtype: np.dtype[np.generic], budget: float) -> NDArray[np.generic]:
    """An array in memory where it needs at most `budget` bytes, else in a temporary file."""
    size = math.prod(shape) * dtype.itemsize
    if size <= budget:
        return np.empty(shape, dtype)
    log.info(
        "beyond resources.cache_gib: kept in a temporary file", gib=round(size / 2**30, 1), folder=tempfile.gettempdir()
    )
    # the file has no name and goes with the mapping, however the process ends
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, dtype, "w+", shape=shape)


def decoded(images: ImageSet, resolution: int, budget: float) -> NDArray[np.uint8]:
    """All images as pixels, uint8 `[n, 3, r, r]`, decoded by as many threads as torch uses."""
    out = allocate((len(images), 3, resolution, resolution), np.dtype(np.uint8), budget)

    def one(position: int) -> None:
        pixels = decode(images.encoded[position], resolution, images.paths[position])
        out[position] = pixels.transpose(2, 0, 1)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _ in pool.map(one, range(len(images))):
            pass
    return cast(NDArray[np.uint8], out)


class FrozenPart:
    """The part of the network below the cut, with its outputs kept by block of images.

    `folder` is the node-local place of the blocks; without one nothing outlives the process.
    """

    def __init__(self, trunk: Trunk, device: torch.device, folder: Path | None) -> None:
        self.trunk, self.device, self._folder = trunk, device, folder
        # pooled features are small; activations are kept in half precision
        self.dtype = np.dtype(np.float32 if trunk.all_frozen else np.float16)
        self._identity = self._trunk_identity() if folder else ""

    def output_shape(self) -> tuple[int, ...]:
        """Of one image."""
        blank = torch.zeros(1, 3, self.trunk.resolution, self.trunk.resolution, device=self.device)
        with torch.no_grad():
            return tuple(self.trunk.lower(blank).shape[1:])

    def outputs(
        self, images: ImageSet, views: list[View], budget: float, what: str, stop: StopSignal | None = None
    ) -> NDArray[np.generic]:
        """`[n, views, …]`, from disk where it is there; raises Stopped between blocks where the signal has come."""
        out = allocate((len(images), len(views), *self.output_shape()), self.dtype, budget)
        work = [(start, v) for v in range(len(views)) for start in range(0, len(images), BLOCK)]
        # processes that begin together go different ways round, so that each finds blocks that others have made
        random.Random(os.getpid()).shuffle(work)
        for start, v in log.progress(work, what, len(work), "blocks"):
            if stop is not None:
                stop.raise_if_set()
            block = images.take(np.arange(start, min(start + BLOCK, len(images))))
            out[start : start + len(block), v] = self.block(block, views[v])
        return out

    def stream(self, images: ImageSet) -> Iterator[NDArray[np.generic]]:
        """The plain outputs of one block of images after the other."""
        for start in range(0, len(images), BLOCK):
            yield self.block(images.take(np.arange(start, min(start + BLOCK, len(images)))), PLAIN)

    def block(self, images: ImageSet, view: View) -> NDArray[np.generic]:
        """Outputs of at most BLOCK images, `[n, …]`."""
        key = self._key(images, view)
        path = self._folder / key[:2] / f"{key}.npy" if self._folder else None
        if path is not None and (found := _read(path, len(images), self.dtype)) is not None:
            return found
        result = self._computed(images, view, key)
        if path is not None:
            _write(path, result)
        return result

    def _computed(self, images: ImageSet, view: View, key: str) -> NDArray[np.generic]:
        pixels = torch.from_numpy(decoded(images, self.trunk.resolution, math.inf))
        size = GPU_BATCH if self.device.type == "cuda" else CPU_BATCH
        seed = int(key[:12], 16)
        parts = []
        for number, batch in enumerate(torch.split(pixels, size)):
            flip = torch.full((len(batch),), view.number % 2 == 1)
            generator = torch_generator("view", seed, number)
            floats = augment(images_on(batch, self.device), view.augmentation, view.erasing, generator, flip)
            with autocast(self.device):
                parts.append(self.trunk.below(floats).float().cpu().numpy().astype(self.dtype))
        return np.concatenate(parts)

    def _key(self, images: ImageSet, view: View) -> str:
        """Hash of everything that a block's values follow from."""
        key = hashlib.sha256(self._identity.encode())
        key.update(json.dumps(asdict(view), sort_keys=True).encode())
        for data in images.encoded:
            key.update(hashlib.sha256(data).digest())
        return key.hexdigest()

    def _trunk_identity(self) -> str:
        trunk = self.trunk
        digest = hashlib.sha256()
        for name, tensor in trunk.lower.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        facts = [str(trunk.lower), trunk.resolution, trunk.mean, trunk.std, self.device.type, timm.__version__]
        return json.dumps([digest.hexdigest(), *facts])


def _read(path: Path, n: int, dtype: np.dtype[np.generic]) -> NDArray[np.generic] | None:
    try:
        found: NDArray[np.generic] = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError, OSError) as error:
        log.warning("a cached block cannot be read and is made anew", path=path, reason=str(error))
        return None
    return found if found.dtype == dtype and len(found) == n else None


def _write(path: Path, values: NDArray[np.generic]) -> None:
    """Whole or not at all, whoever else writes the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, values)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
