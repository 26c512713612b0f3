"""Computes what does not change between epochs: decoded pixels, and the outputs of the frozen backbone.

Each output is cached on local disk under a hash of everything that it depends on: the network, the image and the view. So trials,
repetitions, the judges of all folds, and arms with and without generated images share them on one node.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import TypeVar

import numpy as np
import PIL
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.artifacts.checkpoints import AsyncCheckpointer
from shared.classifier.augment import apply, draw_each
from shared.classifier.feature_cache import FeatureCache
from shared.classifier.model import Trunk
from shared.classifier.precision import autocast, to_float_images
from shared.config.training import Augmentation
from shared.data.imageset import ImageSet, decode
from shared.log import Log
from shared.stop import StopSignal

OUTPUTS = 1
"""Counts the changes of our own code after which cached outputs must be computed again: of decoding, augmenting or splitting the network."""
BLOCK = 256  # outputs per block: seconds of work on a CPU, so an interruption loses little
CPU_BATCH, GPU_BATCH = 32, 128

Block = TypeVar("Block")

log = Log("classifier")


@dataclass(frozen=True)
class View:
    """Describes one fixed augmentation of an image."""

    augmentation: Augmentation = "none"
    erasing: float = 0.0
    number: int = 0
    """Gives the number among several views; odd ones are mirrored, so that two views show both sides."""

    @property
    def is_random(self) -> bool:
        """Returns whether it has random parameters; to mirror an image, as `basic` does, takes none."""
        return self.augmentation not in ("none", "basic") or self.erasing > 0


UNAUGMENTED = View()


def image_digests(images: ImageSet) -> list[bytes]:
    """Returns a hash of each encoded image."""
    return [hashlib.sha256(data).digest() for data in images.encoded]


def told_apart(digests: Sequence[bytes]) -> list[bytes]:
    """Returns the digests, in which equal ones differ by how many come before, so that copies of an image have random views of their own."""
    seen: Counter[bytes] = Counter()
    apart = []
    for digest in digests:
        number = seen[digest]
        apart.append(hashlib.sha256(digest + number.to_bytes(8, "little")).digest() if number else digest)
        seen[digest] += 1
    return apart


def view_seed(digest: bytes, view: View) -> int:
    """Returns the 128-bit seed of the random parameters of an image's view, whatever network sees it."""
    return int.from_bytes(hashlib.blake2b(digest + _name_of(view), digest_size=16).digest(), "little")


@cache
def _name_of(view: View) -> bytes:
    return json.dumps(asdict(view), sort_keys=True).encode()


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


def in_own_order(blocks: Iterable[Block]) -> list[Block]:
    """Returns the blocks in an order that this process alone has, so that processes that start together find what others have computed."""
    ordered = list(blocks)
    random.Random(os.getpid()).shuffle(ordered)
    return ordered


class FrozenBackbone:
    """Runs the frozen backbone, and caches its outputs on disk by image and view.

    All batches have the same size, and are filled up if need be: then an image's output does not depend on its place in a batch or on the
    other images. It is the same, on a CPU to the bit, whatever the cache holds. `files` is the node-local cache; without one, no output
    outlives the process.
    """

    def __init__(self, trunk: Trunk, device: torch.device, files: FeatureCache | None) -> None:
        self.trunk, self.device, self.files = trunk, device, files
        # pooled features are small; activations are stored in half precision
        self.dtype = torch.float32 if trunk.all_frozen else torch.float16
        self.batch = GPU_BATCH if device.type == "cuda" else min(CPU_BATCH, trunk.at_once)
        self._identity = self._backbone_identity()

    def output_shape(self) -> tuple[int, ...]:
        """Returns the shape of the output for one image."""
        blank = torch.zeros(1, 3, self.trunk.resolution, self.trunk.resolution, device=self.device)
        with torch.no_grad():
            return tuple(self.trunk.frozen_part(blank).shape[1:])

    def stream(self, images: ImageSet) -> Iterator[NDArray[np.generic]]:
        """Yields the outputs of the unaugmented images, `[n, …]`, for at most BLOCK images at a time."""
        digests, shape = image_digests(images), self.output_shape()
        for start in range(0, len(images), BLOCK):
            rows = np.arange(start, min(start + BLOCK, len(images)))
            out = torch.empty(len(rows), *shape, dtype=self.dtype).numpy()
            self.fill(out, images, [(digests[row], UNAUGMENTED) for row in rows], rows)
            yield out

    def fill(
        self,
        out: NDArray[np.generic],
        images: ImageSet,
        wanted: Sequence[tuple[bytes, View]],
        rows: NDArray[np.int64],
        what: str | None = None,
        stop: StopSignal | None = None,
    ) -> None:
        """Fills `out`, `[m, …]`, from the cache or by computing. It caches a computed block while it computes the next one.

        `wanted` are the digests of the images at `rows`, and their views. Equal rows should be neighbours: they are decoded together. `what`
        names the outputs in the log. Raises Stopped between blocks.
        """
        keys = [self.key(digest, view) for digest, view in wanted]
        missing = np.flatnonzero(~self.read(keys, out))
        blocks = in_own_order(np.split(missing, range(BLOCK, len(missing), BLOCK)) if len(missing) else [])
        with AsyncCheckpointer() as checkpointer:
            for block in log.progress(blocks, what, len(blocks), "blocks") if what and blocks else blocks:
                if stop is not None:
                    stop.raise_if_set()
                found = np.empty((len(block), *out.shape[1:]), out.dtype)
                left = np.flatnonzero(~self.read([keys[i] for i in block], found))
                if len(left):
                    chosen = block[left]
                    own, place = np.unique(rows[chosen], return_inverse=True)
                    pixels = torch.from_numpy(decoded(images.take(own), self.trunk.resolution))[place]
                    found[left] = self.computed(pixels, [wanted[i] for i in chosen]).cpu().numpy()
                    if self.files is not None:
                        checkpointer.begin(partial(self.files.write, [keys[i] for i in chosen], found[left]))
                out[block] = found

    def read(self, keys: Sequence[bytes], out: NDArray[np.generic]) -> NDArray[np.bool_]:
        """Fills the rows of `out`, C-contiguous `[m, …]`, that are cached, and returns which these are, `[m]`."""
        return self.files.read(keys, out) if self.files is not None else np.zeros(len(keys), np.bool_)

    def computed(self, pixels: Tensor, wanted: Sequence[tuple[bytes, View]]) -> Tensor:
        """Returns the outputs `[m, …]` for pixels, uint8 `[m, 3, r, r]`, on the device and in the type of the cache.

        `wanted` are the digests of the images and their views, from which the random parameters of the augmentation follow.
        """
        kinds = [(view.augmentation, view.erasing) for _, view in wanted]
        parts, order = [], []
        for kind in dict.fromkeys(kinds):  # an augmentation's steps are the same for a whole batch
            at = np.flatnonzero([other == kind for other in kinds])
            for start in range(0, len(at), self.batch):
                chosen = at[start : start + self.batch]
                full = chosen[np.arange(self.batch) % len(chosen)]
                drawn = draw_each(
                    [view_seed(*wanted[i]) for i in full],
                    *kind,
                    torch.tensor([wanted[i][1].number % 2 == 1 for i in full]),
                )
                with autocast(self.device):
                    images = apply(to_float_images(pixels[torch.from_numpy(full)], self.device), drawn)
                    parts.append(self.trunk.frozen_outputs(images)[: len(chosen)].to(self.dtype))
                order.append(chosen)
        places = torch.from_numpy(np.argsort(np.concatenate(order)))
        return torch.cat(parts)[places.to(self.device)]

    def key(self, digest: bytes, view: View) -> bytes:
        """Returns a hash of everything that the output for the image with this digest depends on."""
        return hashlib.blake2b(digest + _name_of(view), key=self._identity, digest_size=16).digest()

    def _backbone_identity(self) -> bytes:
        trunk = self.trunk
        digest = hashlib.sha256()
        for name, tensor in trunk.frozen_part.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        facts = [
            str(trunk.frozen_part),
            trunk.resolution,
            trunk.mean,
            trunk.std,
            str(self.dtype),
            self.batch,
            self.device.type,
            OUTPUTS,
        ]
        digest.update(json.dumps([*facts, timm.__version__, torch.__version__, PIL.__version__]).encode())
        return digest.digest()
