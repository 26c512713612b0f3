"""Seeds random generators by their purpose and place, so that an interrupted run continues with the same random numbers."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def derived_seed(purpose: str, *numbers: int) -> int:
    """Returns a 63-bit seed for one purpose (`order`, `augment`, …) at one place (seed, epoch, batch)."""
    words = np.random.SeedSequence([zlib.crc32(purpose.encode()), *numbers]).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1


def numpy_generator(purpose: str, *numbers: int) -> np.random.Generator:
    """Returns NumPy's generator for that purpose and place."""
    return np.random.default_rng(derived_seed(purpose, *numbers))


def torch_generator(purpose: str, *numbers: int) -> torch.Generator:
    """Returns torch's CPU generator for that purpose and place."""
    return torch.Generator().manual_seed(derived_seed(purpose, *numbers))
