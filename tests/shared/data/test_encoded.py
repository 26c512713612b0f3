from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data.encoded import EncodedImages, EncodedWriter

CONTENT = st.lists(st.binary(max_size=20), max_size=8)


@given(CONTENT, CONTENT, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_parts_and_joined_sets_hold_the_same_images(first: list[bytes], second: list[bytes], random: object) -> None:
    both = EncodedImages.of(first).joined(EncodedImages.of(second))
    assert list(both) == first + second
    assert len(both) == len(first) + len(second)
    rows = [i for i in range(len(both)) if random.random() < 0.5] * 2  # type: ignore[attr-defined]
    part = both.take(np.array(rows, np.int64))
    assert list(part) == [(first + second)[i] for i in rows]
    assert list(part.joined(both)) == list(part) + list(both)
    assert list(both[1:]) == (first + second)[1:]
    assert EncodedImages.of(part) is part


def test_images_are_on_the_disk_as_they_come() -> None:
    """What is alive while they are written is one image: a hundred megabytes are written here from one of them."""
    image = os.urandom(1 << 20)
    alive = 0

    def images() -> Iterator[bytes]:
        nonlocal alive
        for number in range(100):
            yield image[number:]
        alive = resident()

    before = resident()
    held = EncodedImages.of(images())
    assert alive - before < 32 << 20
    assert held[99] == image[99:]
    assert len(held[0]) == 1 << 20


def resident() -> int:
    """Returns the memory of this process that is not of files, in bytes."""
    with open("/proc/self/statm") as file:
        _, total, shared, *_ = file.read().split()
    return (int(total) - int(shared)) * os.sysconf("SC_PAGESIZE")


def test_they_outlive_the_writer_and_leave_no_file(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with EncodedWriter() as writer:
        writer.add(b"one")
        images = writer.finish()
    assert images[0] == b"one"
    assert not os.listdir(str(tmp_path))
    with pytest.raises(IndexError):
        images[1]


def test_another_process_gets_them() -> None:
    images = EncodedImages.of([b"a", b"", b"bc"]).take(np.array([2, 1]))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(list, (images,)) == [b"bc", b""]
