from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from shared.diffusion.text_to_image.processes import Rank, processes
from shared.errors import DataError
from tests.support.hostile import HostileFolder

PATIENCE_SECONDS = 120  # on a busy machine


def damaged(job: str, rank: Rank) -> None:
    raise DataError(f"{job}: seen by process {rank.number}")


class EndsAsItStarts:
    """Ends the process that unpickles it: a job whose process dies at its start."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (3,)


def wait_for_the_others(rank: Rank) -> None:
    start = time.monotonic()
    while time.monotonic() - start < PATIENCE_SECONDS:
        rank.check()
        time.sleep(0.05)


def test_one_process_needs_no_group(tmp_path: Path) -> None:
    with processes("job", damaged, 1, tmp_path, True) as rank:
        rank.check()
        assert (rank.number, rank.count) == (0, 1)
        assert not torch.distributed.is_initialized()
    assert "WORLD_SIZE" not in os.environ


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_SECONDS)
def test_a_process_that_dies_as_it_starts_is_not_waited_for(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="process 2/2 of the fine-tuning ended with exit code 3"),
        processes(EndsAsItStarts(), damaged, 2, tmp_path, True),
    ):
        pass
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_what_ends_another_process_is_raised_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = HostileFolder(tmp_path / "user")  # the user's current folder
    monkeypatch.chdir(hostile.folder)
    with (
        pytest.raises(DataError, match="image 7: seen by process 1"),
        processes("image 7", damaged, 2, tmp_path, True) as rank,
    ):
        wait_for_the_others(rank)
    assert all(process.exitcode is not None for process, _ in rank.others)
    assert not torch.distributed.is_initialized()
    assert "WORLD_SIZE" not in os.environ
    assert hostile.imported == []
