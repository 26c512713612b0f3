"""Times the search for near-duplicates among generated images, from which `shared.forecast` computes how long `score` takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from shared.benchmark import Range, repeated, spread, work_clock
from shared.data.random_images import random_images
from shared.data.schema import LabelSchema
from shared.score.appearance import appearances, nearest
from shared.score.near_duplicates import HELD_OUT
from shared.stop import StopSignal

DRAWN = 32  # images whose looks are described at once
COMPARED = 128  # images on either side of a comparison


@dataclass(frozen=True)
class ComparisonTime:
    """Holds the seconds of each part of the search, as ranges."""

    look: Range
    """Gives those to describe how an image looks."""
    parts: Range
    """Gives those to cut the parts of a real image with which others are compared."""
    pair: Range
    """Gives those to compare an image and its mirror image with the parts of a real image."""
    held_out: int = HELD_OUT
    """Limits the validation images that are compared too."""


def time_comparisons(resolution: int, schema: LabelSchema) -> ComparisonTime:
    """Times the parts of the search on drawn images of this side in pixels, with the threads that torch has now."""
    images, stop = random_images(schema, resolution, DRAWN), StopSignal()
    looks = appearances(images, stop)
    many = looks.take(np.arange(COMPARED) % DRAWN)
    cut = _seconds(lambda: nearest([looks.take(np.arange(1))], many, stop)) / COMPARED
    compared = _seconds(lambda: nearest([many], many, stop))
    pair = np.maximum(compared - cut[1] * COMPARED, 0.0) / COMPARED**2
    return ComparisonTime(_seconds(lambda: appearances(images, stop)) / DRAWN, cut, pair)


def _seconds(work: Callable[[], object]) -> Range:
    """Returns the seconds of the work, done a few times."""
    clock = work_clock(False, torch.get_num_threads())

    def once() -> float:
        began = clock()
        work()
        return clock() - began

    return spread(repeated(once))
