"""The inputs of a training: pixels, or outputs of the frozen backbone.

They are held in memory as far as the budget allows. The rest is computed again, with the same values, whenever it is needed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.classifier.augment import AugmentationParameters
from shared.classifier.frozen_features import BLOCK, FrozenBackbone, View, decoded
from shared.data.imageset import ImageSet
from shared.log import Log
from shared.stop import StopSignal

Rows = NDArray[np.int64]

PIXELS_SHARE = 0.25
"""The share of the memory for decoded images if not all outputs fit."""

log = Log("classifier")


class Pixels:
    """The pixels of decoded images."""

    def __init__(self, images: ImageSet, resolution: int, budget: float, device: torch.device) -> None:
        self.images, self.resolution = images, resolution
        fitting = _rows_that_fit(len(images), 3 * resolution**2, budget, "images decoded")
        self.kept = _on_gpu_if_small(torch.from_numpy(decoded(images.take(np.arange(fitting)), resolution)), device)

    @property
    def nbytes(self) -> int:
        """The memory that they take, in bytes."""
        return self.kept.nbytes

    def rows(self, rows: Rows) -> Tensor:
        """Returns the pixels of these images, uint8 `[n, 3, r, r]`, on the CPU or on the device that holds them."""
        inside = rows < len(self.kept)
        found = self.kept[_tensor_on(rows[inside], self.kept.device)]
        if inside.all():
            return found
        out = torch.empty(len(rows), *self.kept.shape[1:], dtype=torch.uint8)
        out[torch.from_numpy(inside)] = found.cpu()
        out[torch.from_numpy(~inside)] = torch.from_numpy(decoded(self.images.take(rows[~inside]), self.resolution))
        return out


class FrozenFeatures:
    """The frozen backbone's outputs for one or several views of each image."""

    def __init__(
        self,
        frozen: FrozenBackbone,
        images: ImageSet,
        views: list[View],
        budget: float,
        what: str,
        stop: StopSignal | None = None,
    ) -> None:
        """Computes the outputs that fit in memory and on disk; `what` names them in the log. Raises Stopped between blocks."""
        self.frozen, self.images, self.views = frozen, images, views
        shape = frozen.output_shape()
        size = int(np.prod(shape)) * frozen.dtype.itemsize
        row_bytes = len(views) * size
        pixels_budget = PIXELS_SHARE * budget if len(images) * row_bytes > budget else 0.0
        fitting = _rows_that_fit(len(images), row_bytes, budget - pixels_budget, what)
        self._pixels: Pixels | None = None
        """The pixels of the images whose outputs do not fit."""
        if fitting < len(images):
            beyond = images.take(np.arange(fitting, len(images)))
            self._pixels = Pixels(beyond, frozen.trunk.resolution, pixels_budget, torch.device("cpu"))
        kept = torch.empty(fitting, len(views), *shape, dtype=frozen.dtype)
        self._keys: dict[tuple[int, int], str] = {}
        work = self._blocks_to_compute(fitting, BLOCK * size)
        blocks = {start: self._block(start) for start, _ in work}

        def requests() -> Iterator[tuple[ImageSet, View]]:
            for start, v in work:
                if stop is not None:
                    stop.raise_if_set()
                yield blocks[start], views[v]

        made = frozen.blocks(requests())
        for (start, v), values in zip(log.progress(work, what, len(work), "blocks"), made, strict=True):
            end = min(start + BLOCK, fitting)
            if end > start:
                kept.numpy()[start:end, v] = values[: end - start]
        self.kept = _on_gpu_if_small(kept, frozen.device)

    @property
    def nbytes(self) -> int:
        """The memory that they take, in bytes."""
        return self.kept.nbytes + (self._pixels.nbytes if self._pixels is not None else 0)

    def rows(self, rows: Rows, views: Rows) -> Tensor:
        """Returns the outputs of these images in these views (by number), float32 `[n, …]`, on the device."""
        inside = rows < len(self.kept)
        place, device = self.kept.device, self.frozen.device
        found = self.kept[_tensor_on(rows[inside], place), _tensor_on(views[inside], place)]
        found = found.to(device, torch.float32, non_blocking=True)
        if inside.all():
            return found
        out = torch.empty(len(rows), *self.kept.shape[2:], device=device)
        out[_tensor_on(inside, device)] = found
        out[_tensor_on(~inside, device)] = self._read_or_recompute(rows[~inside], views[~inside]).to(torch.float32)
        return out

    def _blocks_to_compute(self, fitting: int, block_bytes: int) -> list[tuple[int, int]]:
        """Returns the blocks to compute as (first row, view): those that fit in memory, then as many as fit on disk."""
        order = random.Random(os.getpid())
        parts = []
        for first, last in ((0, fitting), (-(-fitting // BLOCK) * BLOCK, len(self.images))):
            starts, numbers = list(range(first, last, BLOCK)), list(range(len(self.views)))
            # in an order of its own per process, so that processes that start together find blocks that others have computed
            order.shuffle(starts)
            order.shuffle(numbers)
            parts.append([(start, v) for start in starts for v in numbers])
        files = self.frozen.files
        return parts[0] + parts[1][: int(files.limit // block_bytes) if files else 0]

    def _block(self, start: int) -> ImageSet:
        return self.images.take(np.arange(start, min(start + BLOCK, len(self.images))))

    def _key(self, row: int, view: int) -> str:
        where = row // BLOCK * BLOCK, view
        if where not in self._keys:
            self._keys[where] = self.frozen.key(self._block(where[0]), self.views[view])
        return self._keys[where]

    def _read_or_recompute(self, rows: Rows, views: Rows) -> Tensor:
        """Returns outputs that are not in memory, from disk or computed."""
        out = torch.empty(len(rows), *self.kept.shape[2:], dtype=self.frozen.dtype, device=self.frozen.device)
        missing = np.ones(len(rows), np.bool_)
        for at in _groups(rows // BLOCK, views):
            start = int(rows[at[0]]) // BLOCK * BLOCK
            length = min(BLOCK, len(self.images) - start)
            found = self.frozen.kept(self._key(start, int(views[at[0]])), length)
            if found is not None:
                out[_tensor_on(at, out.device)] = torch.tensor(found[rows[at] - start]).to(out.device)
                missing[at] = False
        at = np.flatnonzero(missing)
        if len(at):
            out[_tensor_on(at, out.device)] = self._recompute(rows[at], views[at])
        return out

    def _recompute(self, rows: Rows, views: Rows) -> Tensor:
        """Computes the outputs with the augmentation of their blocks."""
        places, drawn = [], []
        batches = np.array([self.frozen.batch_of(int(row)) for row in rows])
        for at in _groups(rows // BLOCK * BLOCK + batches[:, 0], views):
            row, view = int(rows[at[0]]), int(views[at[0]])
            length = self.frozen.batch_length(len(self.images), row)
            whole = self.frozen.drawn(self._key(row, view), self.views[view], int(batches[at[0], 0]), length)
            drawn.append(whole.take(torch.from_numpy(batches[at, 1])))
            places.append(at)
        order = np.concatenate(places)
        assert self._pixels is not None
        computed = self.frozen.computed(
            self._pixels.rows(rows[order] - len(self.kept)), AugmentationParameters.concatenated(drawn)
        )
        return computed[_tensor_on(np.argsort(order), computed.device)]


def _rows_that_fit(n: int, row_bytes: int, budget: float, what: str) -> int:
    """Returns how many of n rows fit in the budget, and warns if not all do."""
    fitting = min(n, max(0, int(budget // row_bytes)))
    if fitting < n:
        log.warning(
            "not everything fits in resources.cache_gib; the rest is computed whenever it is needed, which takes longer; raise it if there is memory",
            what=what,
            gib_needed=round(n * row_bytes / 2**30, 1),
            share_kept=round(fitting / n, 2),
        )
    return fitting


def _groups(first: Rows, second: Rows) -> Iterator[Rows]:
    """Yields the positions of each pair of values."""
    _, group = np.unique(np.stack([first, second], 1), axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _tensor_on(values: NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device, non_blocking=True)


def _on_gpu_if_small(values: Tensor, device: torch.device) -> Tensor:
    """Moves the values to the GPU if they take at most a quarter of its free memory."""
    if device.type == "cuda" and values.nbytes <= torch.cuda.mem_get_info(device)[0] // 4:
        return values.to(device)
    return values
