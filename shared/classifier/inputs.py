"""Holds the inputs of a training: pixels, or outputs of the frozen backbone.

As many are held in memory as the budget allows. The others are computed again, with the same values, whenever they are needed.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.classifier.feature_cache import DISK_SHARE
from shared.classifier.frozen_features import (
    BLOCK,
    FrozenBackbone,
    View,
    decoded,
    image_digests,
    in_own_order,
    told_apart,
)
from shared.data.imageset import ImageSet
from shared.log import Log
from shared.stop import StopSignal

Rows = NDArray[np.int64]

PIXELS_SHARE = 0.25
"""Sets the share of the memory that decoded images get if not all outputs fit."""

log = Log("classifier")


class Pixels:
    """Holds the pixels of decoded images."""

    def __init__(self, images: ImageSet, resolution: int, budget: float, device: torch.device) -> None:
        self.images, self.resolution = images, resolution
        fitting = _rows_that_fit(len(images), 3 * resolution**2, budget, "images decoded")
        self.kept = _on_gpu_if_small(torch.from_numpy(decoded(images.take(np.arange(fitting)), resolution)), device)

    @property
    def nbytes(self) -> int:
        """Returns the memory that they take, in bytes."""
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
    """Holds the frozen backbone's outputs for one or several views of each image."""

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
        """Holds the pixels of the images whose outputs do not fit."""
        if fitting < len(images):
            beyond = images.take(np.arange(fitting, len(images)))
            self._pixels = Pixels(beyond, frozen.trunk.resolution, pixels_budget, torch.device("cpu"))
        self._digests = image_digests(images)
        self._apart = told_apart(self._digests)
        kept = torch.empty(fitting, len(views), *shape, dtype=frozen.dtype)
        inside = fitting * len(views)
        rows, numbers = np.divmod(np.arange(inside), len(views))
        frozen.fill(
            kept.numpy().reshape(inside, *shape),
            images,
            self._wanted(rows, numbers),
            rows,
            what,
            stop,
        )
        self._store_ahead(inside, what, stop)
        self.kept = _on_gpu_if_small(kept, frozen.device)

    def _store_ahead(self, inside: int, what: str, stop: StopSignal | None) -> None:
        """Computes the outputs after the first `inside`, as many as fit on disk, unless they are there. Raises Stopped between blocks."""
        frozen = self.frozen
        if frozen.files is None:
            return
        count = len(self.images) * len(self.views)
        shape = frozen.output_shape()
        on_disk = int(DISK_SHARE * frozen.files.limit // (int(np.prod(shape)) * frozen.dtype.itemsize))
        blocks = in_own_order(range(inside, min(inside + on_disk, count), BLOCK))
        for start in log.progress(blocks, f"{what}, to disk", len(blocks), "blocks") if blocks else ():
            rows, numbers = np.divmod(np.arange(start, min(start + BLOCK, count)), len(self.views))
            wanted = self._wanted(rows, numbers)
            missing = np.flatnonzero(~frozen.files.holds([frozen.key(*each) for each in wanted]))
            scratch = torch.empty(len(missing), *shape, dtype=frozen.dtype).numpy()
            frozen.fill(scratch, self.images, [wanted[i] for i in missing], rows[missing], None, stop)

    @property
    def nbytes(self) -> int:
        """Returns the memory that they take, in bytes."""
        return self.kept.nbytes + (self._pixels.nbytes if self._pixels is not None else 0)

    def rows(self, rows: Rows, views: Rows) -> Tensor:
        """Returns the outputs of these images in these views (by number), as float32 `[n, …]`, on the device."""
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

    def _wanted(self, rows: Rows, views: Rows) -> list[tuple[bytes, View]]:
        wanted = []
        for row, number in zip(rows.tolist(), views.tolist(), strict=True):
            view = self.views[number]
            wanted.append(((self._apart if view.is_random else self._digests)[row], view))
        return wanted

    def _read_or_recompute(self, rows: Rows, views: Rows) -> Tensor:
        """Returns outputs that are not in memory: reads them from disk, or computes them."""
        wanted = self._wanted(rows, views)
        out = torch.empty(len(rows), *self.kept.shape[2:], dtype=self.frozen.dtype)
        found = self.frozen.read([self.frozen.key(*each) for each in wanted], out.numpy())
        missing = np.flatnonzero(~found)
        if len(missing):
            assert self._pixels is not None
            pixels = self._pixels.rows(rows[missing] - len(self.kept)).cpu()
            out[torch.from_numpy(missing)] = self.frozen.computed(pixels, [wanted[i] for i in missing]).cpu()
        return out.to(self.frozen.device)


def _rows_that_fit(n: int, row_bytes: int, budget: float, what: str) -> int:
    """Returns how many of n rows fit in the budget, and warns if not all do."""
    fitting = min(n, max(0, int(budget // row_bytes)))
    if fitting < n:
        log.warning(
            "not everything fits in memory, which resources.cache_gib or what is free limits; the rest is read from disk or computed again",
            what=what,
            gib_needed=round(n * row_bytes / 2**30, 1),
            share_kept=round(fitting / n, 2),
        )
    return fitting


def _tensor_on(values: NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device, non_blocking=True)


def _on_gpu_if_small(values: Tensor, device: torch.device) -> Tensor:
    """Moves the values to the GPU if they take at most a quarter of its free memory."""
    if device.type == "cuda" and values.nbytes <= torch.cuda.mem_get_info(device)[0] // 4:
        return values.to(device)
    return values
