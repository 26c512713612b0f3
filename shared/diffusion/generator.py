"""What every generator offers, so that `generate` need not know which one it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import Labels


@dataclass(frozen=True)
class SampleRequest:
    """One image to draw."""

    labels: Labels
    """`[C]`."""
    seed: int
    """Of this image's own random generator: the image depends on nothing else of the batch but its size."""
    start: NDArray[np.uint8] | None = None
    """A real image `[r, r, 3]` to start from (image-to-image)."""
    strength: float | None = None
    """Share of the noise schedule that is run on `start`."""


class Generator(Protocol):
    """A trained, conditional image generator on one device."""

    resolution: int
    """Side in pixels of what it draws."""

    def prompt(self, labels: Labels) -> str:
        """What it is asked to draw, in words: a caption, or the class names."""

    def sample(self, requests: Sequence[SampleRequest], guidance: float, steps: int) -> NDArray[np.uint8]:
        """Draws one image a request, `[n, resolution, resolution, 3]` RGB; the same requests in the same order give the same bytes on one device type."""
