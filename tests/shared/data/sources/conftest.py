from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture() -> Callable[[Path], Path]:
    """Writes a small image to a path, a different one for each path."""

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(path.name.encode()))
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(path)
        return path

    return write
