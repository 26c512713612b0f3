from __future__ import annotations

import gzip
import struct
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data.sources.idx import read_idx
from shared.errors import TailfillError

VALUES = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
VALID = bytes([0, 0, 8, 3]) + struct.pack(">3I", *VALUES.shape) + VALUES.tobytes()


def test_values_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(VALID)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(VALID))
    for name in ("plain", "packed.gz"):
        np.testing.assert_array_equal(read_idx(tmp_path / name, 3), VALUES)


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=60)
    | st.builds(lambda cut, more: VALID[:cut] + more, st.integers(0, len(VALID)), st.binary(max_size=30)),
    packed=st.sampled_from(["plain", "whole", "cut"]),
)
def test_any_bytes_are_read_or_refused(data: bytes, packed: str) -> None:
    stored = data if packed == "plain" else gzip.compress(data)[: None if packed == "whole" else -5]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("images" if packed == "plain" else "images.gz")
        path.write_bytes(stored)
        try:
            assert read_idx(path, 3).ndim == 3
        except TailfillError as error:
            assert "images" in str(error)
