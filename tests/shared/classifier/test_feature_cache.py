from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.classifier import feature_cache as module
from shared.classifier.feature_cache import DATABASE, PAGE, FeatureCache

WIDTH, LIMIT = 6000, 150 * PAGE  # a row takes nearly a page
KEYS = [bytes([i, j]) * 8 for i in range(4) for j in range(100)]


def value(number: int) -> NDArray[np.float32]:
    return np.random.default_rng(number).random(WIDTH, np.float32)


def values(*numbers: int) -> NDArray[np.float32]:
    return np.stack([value(number) for number in numbers])


def held(files: FeatureCache, numbers: range) -> list[int]:
    """The numbers of the rows that are cached, each of which must be right."""
    out = np.zeros((len(numbers), WIDTH), np.float32)
    found = files.read([KEYS[number] for number in numbers], out)
    assert all(
        np.array_equal(row, value(number)) for row, number in zip(out[found], np.array(numbers)[found], strict=True)
    )
    return [int(number) for number in np.array(numbers)[found]]


def used(folder: Path) -> int:
    """The bytes of the database and its log, which the last process that closes it removes."""
    total = 0
    for name in (DATABASE, f"{DATABASE}-wal"):
        with contextlib.suppress(FileNotFoundError):
            total += (folder / name).stat().st_size
    return total


def test_what_is_written_is_read(tmp_path: Path) -> None:
    files = FeatureCache(tmp_path, 1e9)
    assert held(files, range(3)) == []
    assert files.holds(KEYS[:3]).tolist() == [False, False, False]
    files.write(KEYS[:2], values(0, 1))
    assert held(files, range(3)) == [0, 1]
    assert files.holds(KEYS[:3]).tolist() == [True, True, False]
    out = np.zeros((4, WIDTH), np.float32)
    assert files.read([KEYS[1], KEYS[5], KEYS[0], KEYS[1]], out).tolist() == [True, False, True, True]
    assert np.array_equal(out[[0, 2, 3]], values(1, 0, 1))
    assert not files.read(KEYS[:2], np.zeros((2, WIDTH), np.float16)).any()  # of another length


def test_what_earlier_versions_cached_is_removed(tmp_path: Path) -> None:
    block, other = tmp_path / "a0" / "a0ff.npy", tmp_path / "notes" / "mine.npy"
    for path in (block, other):
        path.parent.mkdir()
        path.write_bytes(b"x")
    FeatureCache(tmp_path, 1e8).write([b"k" * 16], np.zeros((1, 4), np.float32))
    assert (block.exists(), other.exists()) == (False, True)


def test_rows_of_any_length(tmp_path: Path) -> None:
    files = FeatureCache(tmp_path, 1e9)
    for length in (1, 2, 3, 4, 7, 8, 100_001):
        row = np.random.default_rng(length).integers(0, 256, (1, length), np.uint8)
        out, key = np.zeros_like(row), [length.to_bytes(16, "big")]
        files.write(key, row)
        assert files.read(key, out).all()
        assert np.array_equal(out, row)


def test_the_longest_unused_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, now = FeatureCache(tmp_path, LIMIT), [1e9]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    for start in range(0, 160, 4):
        files.write(KEYS[start : start + 4], values(*range(start, start + 4)))
    first = held(files, range(160))[0]
    now[0] += module.RECENT
    again = range(first, first + 30)
    assert held(files, again) == list(again)  # used again
    for start in range(160, 200, 4):
        files.write(KEYS[start : start + 4], values(*range(start, start + 4)))
    left = held(files, range(400))
    assert left[:30] == list(again)
    assert left[30] > first + 40
    assert left[-40:] == list(range(160, 200))
    assert used(tmp_path) <= LIMIT


def test_the_limit_holds_and_may_be_lowered(tmp_path: Path) -> None:
    for limit in (LIMIT, LIMIT // 2):
        files = FeatureCache(tmp_path, limit)
        for start in range(0, 400, 5):
            files.write(KEYS[start : start + 5], values(*range(start, start + 5)))
            assert used(tmp_path) <= LIMIT
        assert used(tmp_path) <= limit
        assert len(held(files, range(400))) * WIDTH * 4 > 0.2 * limit  # a log and tables take a fixed part


def test_rows_beyond_the_limit_are_not_kept_and_cost_no_others(tmp_path: Path) -> None:
    files = FeatureCache(tmp_path, 60 * PAGE)
    files.write(KEYS[:2], values(0, 1))
    files.write([KEYS[9]], np.zeros((1, 60 * PAGE), np.uint8))
    assert held(files, range(2)) == [0, 1]
    assert used(tmp_path) <= files.limit


@pytest.mark.parametrize("harm", ["short", "noise", "empty", "pages", "row"])
def test_what_is_damaged_is_computed_again(tmp_path: Path, harm: str) -> None:
    files, path = FeatureCache(tmp_path, 1e9), tmp_path / DATABASE
    for start in range(0, 40, 4):
        files.write(KEYS[start : start + 4], values(*range(start, start + 4)))
    whole = path.read_bytes()
    if harm == "row":
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("UPDATE outputs SET value = zeroblob(?) WHERE id = 3", (WIDTH * 4,))
        database.close()
    else:
        middle = whole[: 10 * PAGE] + bytes(20 * PAGE) + whole[30 * PAGE :]
        path.write_bytes(
            {"short": whole[: len(whole) // 2], "noise": os.urandom(5000), "empty": b"", "pages": middle}[harm]
        )
    left = held(files, range(40))  # none of which is wrong
    assert len(left) == 39 if harm == "row" else len(left) < 40
    files.write(KEYS[:40], values(*range(40)))
    files.write(KEYS[:40], values(*range(40)))  # the damage may show in the first write, which gives up
    assert held(files, range(40)) == list(range(40))


def test_a_folder_that_takes_nothing_ends_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "features").write_text("a file where a folder should be")
    FeatureCache(tmp_path / "features", 1e9).write(KEYS[:1], values(0))
    assert "cannot be cached" in caplog.text


def work(folder: Path, seed: int, rounds: int) -> None:
    files, rng = FeatureCache(folder, LIMIT), np.random.default_rng(seed)
    for _ in range(rounds):
        numbers = range(start := int(rng.integers(0, 396)), start + 4)
        if len(held(files, numbers)) < 4:
            files.write(KEYS[start : start + 4], values(*numbers))


def test_processes_share_it_within_the_limit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(tmp_path, seed, 40)) for seed in range(3)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        assert used(tmp_path) <= LIMIT
        time.sleep(0.005)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(held(FeatureCache(tmp_path, 1e9), range(400))) > 20


def test_a_process_may_be_killed_at_any_moment(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    files = FeatureCache(tmp_path, LIMIT)
    for seed in range(3):
        process = context.Process(target=work, args=(tmp_path, seed, 100_000))
        process.start()
        deadline = time.monotonic() + 60
        while not held(files, range(400)) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1 + 0.07 * seed)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert held(files, range(400))
        files.write(KEYS[:4], values(*range(4)))
        assert held(files, range(4)) == [0, 1, 2, 3]
        database = sqlite3.connect(tmp_path / DATABASE)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert (
            database.execute("SELECT count(*) FROM outputs").fetchone()
            == database.execute("SELECT count(*) FROM entries JOIN outputs USING (id)").fetchone()
        )
        database.close()
