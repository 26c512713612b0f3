from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from shared.classifier.feature_cache import ABANDONED, FeatureCache

FLOAT = np.dtype(np.float32)
VALUES = np.arange(1000, dtype=np.float32).reshape(10, 100)
SIZE = VALUES.nbytes + 128  # NumPy's header
NAMES = [f"{i:02d}-block" for i in range(8)]


def used(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    files = FeatureCache(tmp_path, 1e9)
    assert files.read("ab", 10, FLOAT) is None
    files.write("ab", VALUES)
    found = files.read("ab", 10, FLOAT)
    assert found is not None
    assert np.array_equal(found, VALUES)
    assert files.read("ab", 9, FLOAT) is None
    assert files.read("ab", 10, np.dtype(np.float16)) is None


def test_the_longest_unused_make_room(tmp_path: Path) -> None:
    files = FeatureCache(tmp_path, 3 * SIZE)
    for age, name in enumerate(NAMES[:3]):
        files.write(name, VALUES)
        os.utime(files._path(name), (1e9 + age, 1e9 + age))
    assert files.read(NAMES[0], 10, FLOAT) is not None
    files.write(NAMES[3], VALUES)
    assert [files.read(name, 10, FLOAT) is not None for name in NAMES[:4]] == [True, False, True, True]
    assert used(tmp_path) == 3 * SIZE


def test_a_block_beyond_the_limit_is_not_kept_and_costs_no_other(tmp_path: Path) -> None:
    files = FeatureCache(tmp_path, 2 * SIZE)
    files.write("small", VALUES)
    files.write("large", np.concatenate([VALUES] * 3))
    assert files.read("large", 30, FLOAT) is None
    assert files.read("small", 10, FLOAT) is not None


def test_what_a_killed_process_left_goes_in_time(tmp_path: Path) -> None:
    files = FeatureCache(tmp_path, 2 * SIZE)
    files.write("ab", VALUES)
    left, under_way = tmp_path / "ab" / ".part-left", tmp_path / "ab" / ".part-under-way"
    for path in (left, under_way):
        path.write_bytes(bytes(SIZE))
    long_ago = time.time() - 2 * ABANDONED
    os.utime(left, (long_ago, long_ago))
    files.write("cd", VALUES)
    assert not left.exists()
    assert under_way.exists()
    assert files.read("ab", 10, FLOAT) is not None


def test_a_map_outlives_its_file(tmp_path: Path) -> None:
    files = FeatureCache(tmp_path, SIZE)
    files.write("ab", VALUES)
    found = files.read("ab", 10, FLOAT)
    files.write("cd", VALUES)
    assert files.read("ab", 10, FLOAT) is None
    assert found is not None
    assert np.array_equal(found, VALUES)


def test_a_folder_that_takes_nothing_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "ab").write_text("a file where a folder should be")
    FeatureCache(tmp_path, 1e9).write("ab", VALUES)
    assert "cannot be cached" in caplog.text


def _work(folder: Path, seed: int) -> None:
    files, rng = FeatureCache(folder, 4 * SIZE), np.random.default_rng(seed)
    for name in rng.choice(NAMES, 60):
        found = files.read(name, 10, FLOAT)
        if found is None:
            files.write(name, VALUES)
        elif not np.array_equal(found, VALUES):
            raise AssertionError(name)


def test_processes_share_it_within_the_limit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(tmp_path, seed)) for seed in range(3)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        with FeatureCache(tmp_path, 0)._lock():  # listing takes time, in which files may be removed and added
            assert sum(SIZE for _ in tmp_path.glob("*/*.npy")) <= 4 * SIZE
        time.sleep(0.005)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert used(tmp_path) <= 4 * SIZE
    assert not list(tmp_path.glob("*/.part-*"))
