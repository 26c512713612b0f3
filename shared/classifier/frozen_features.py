"""What does not change between epochs: decoded pixels, and the outputs of the frozen backbone.

The outputs are cached on local disk in blocks, each named by a hash of everything that it depends on, so that trials, seeds and
processes on one node share them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.artifacts.checkpoints import AsyncCheckpointer
from shared.classifier.augment import AugmentationParameters, apply, draw
from shared.classifier.feature_cache import FeatureCache
from shared.classifier.model import Trunk
from shared.classifier.precision import autocast, to_float_images
from shared.classifier.rng import torch_generator
from shared.config.training import Augmentation
from shared.data.imageset import ImageSet, decode

BLOCK = 256  # images per block: seconds of work on a CPU, so an interruption loses little
CPU_BATCH, GPU_BATCH = 32, 256


@dataclass(frozen=True)
class View:
    """One fixed augmentation of an image."""

    augmentation: Augmentation = "none"
    erasing: float = 0.0
    number: int = 0
    """The number among several views; odd ones are mirrored, so that two views show both sides."""


UNAUGMENTED = View()


def decoded(images: ImageSet, resolution: int) -> NDArray[np.uint8]:
    """Decodes all images to pixels, uint8 `[n, 3, r, r]`, with as many threads as torch uses."""
    out = np.empty((len(images), 3, resolution, resolution), np.uint8)

    def one(position: int) -> None:
        pixels = decode(images.encoded[position], resolution, images.paths[position])
        out[position] = pixels.transpose(2, 0, 1)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _ in pool.map(one, range(len(images))):
            pass
    return out


class FrozenBackbone:
    """The frozen backbone, whose outputs are cached on disk by block of images.

    `files` is the node-local cache; without one no output outlives the process.
    """

    def __init__(self, trunk: Trunk, device: torch.device, files: FeatureCache | None) -> None:
        self.trunk, self.device, self.files = trunk, device, files
        # pooled features are small; activations are stored in half precision
        self.dtype = torch.float32 if trunk.all_frozen else torch.float16
        self._identity = self._backbone_identity()
        self._batch = GPU_BATCH if device.type == "cuda" else CPU_BATCH
        self._decoded: tuple[ImageSet, Tensor] | None = None
        """The pixels of the last block, which its next view needs too."""

    def output_shape(self) -> tuple[int, ...]:
        """Returns the shape of the output for one image."""
        blank = torch.zeros(1, 3, self.trunk.resolution, self.trunk.resolution, device=self.device)
        with torch.no_grad():
            return tuple(self.trunk.frozen_part(blank).shape[1:])

    def stream(self, images: ImageSet) -> Iterator[NDArray[np.generic]]:
        """Yields the outputs of the unaugmented images, block by block."""
        starts = range(0, len(images), BLOCK)
        yield from self.blocks((images.take(np.arange(s, min(s + BLOCK, len(images)))), UNAUGMENTED) for s in starts)

    def blocks(self, wanted: Iterable[tuple[ImageSet, View]]) -> Iterator[NDArray[np.generic]]:
        """Yields the outputs of at most BLOCK images each, `[n, …]`, from the cache or computed.

        A computed block is written while the next one is computed.
        """
        with AsyncCheckpointer() as checkpointer:
            for images, view in wanted:
                yield self._block(images, view, checkpointer)
        self._decoded = None

    def _block(self, images: ImageSet, view: View, checkpointer: AsyncCheckpointer) -> NDArray[np.generic]:
        key = self.key(images, view)
        found = self.kept(key, len(images))
        if found is not None:
            return found
        batches = np.split(np.arange(len(images)), range(self._batch, len(images), self._batch))
        drawn = [self.drawn(key, view, number, len(rows)) for number, rows in enumerate(batches)]
        pixels = self._pixels(images)
        parts = [self.computed(pixels[rows], part) for rows, part in zip(batches, drawn, strict=True)]
        result: NDArray[np.generic] = torch.cat(parts).cpu().numpy()
        if self.files is not None:
            checkpointer.begin(partial(self.files.write, key, result))
        return result

    def kept(self, key: str, n: int) -> NDArray[np.generic] | None:
        """Returns the cached outputs of a block of n images, or None."""
        return self.files.read(key, n, torch.empty(0, dtype=self.dtype).numpy().dtype) if self.files else None

    def batch_of(self, row: int) -> tuple[int, int]:
        """Returns the number of the batch, within its block, in which a row is augmented, and its position in that batch."""
        return divmod(row % BLOCK, self._batch)

    def batch_length(self, images: int, row: int) -> int:
        """Returns the number of images in the batch of a row, in a set of `images` images."""
        return min(self._batch, images - row // self._batch * self._batch)

    def drawn(self, key: str, view: View, number: int, n: int) -> AugmentationParameters:
        """Returns the parameters of batch `number`, of n images, of the block with that key."""
        flip = torch.full((n,), view.number % 2 == 1)
        return draw(n, view.augmentation, view.erasing, torch_generator("view", int(key[:12], 16), number), flip)

    def computed(self, pixels: Tensor, drawn: AugmentationParameters) -> Tensor:
        """Returns the outputs `[n, …]` for pixels, uint8 `[n, 3, r, r]`, on the device and in the type that is cached."""
        with autocast(self.device):
            return self.trunk.frozen_outputs(apply(to_float_images(pixels, self.device), drawn)).to(self.dtype)

    def _pixels(self, images: ImageSet) -> Tensor:
        if self._decoded is None or self._decoded[0] is not images:
            self._decoded = images, torch.from_numpy(decoded(images, self.trunk.resolution))
        return self._decoded[1]

    def key(self, images: ImageSet, view: View) -> str:
        """Returns a hash of everything that the values of a block depend on."""
        key = hashlib.sha256(self._identity.encode())
        key.update(json.dumps(asdict(view), sort_keys=True).encode())
        for data in images.encoded:
            key.update(hashlib.sha256(data).digest())
        return key.hexdigest()

    def _backbone_identity(self) -> str:
        trunk = self.trunk
        digest = hashlib.sha256()
        for name, tensor in trunk.frozen_part.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        facts = [str(trunk.frozen_part), trunk.resolution, trunk.mean, trunk.std, self.device.type, timm.__version__]
        return json.dumps([digest.hexdigest(), *facts])
