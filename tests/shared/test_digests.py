from __future__ import annotations

from pathlib import Path

import pytest

from shared.digests import file_digest, stream_digest

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of FIPS 180-4's example


def test_a_file_and_a_stream_of_the_same_bytes_have_the_same_digest(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert file_digest(tmp_path / "file") == stream_digest([b"a", b"", b"bc"]) == ABC
    with pytest.raises(FileNotFoundError):
        file_digest(tmp_path / "none")
