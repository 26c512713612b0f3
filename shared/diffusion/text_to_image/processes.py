"""Runs one fine-tuning in several processes, one per GPU. The calling process is the first, and starts the others.

The others end with the first, however it ends. An error in one of them is raised in the first.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import patch_environment

from shared.errors import TailfillError
from shared.isolation import isolated_children
from shared.parent_death import die_with_parent

TIMEOUT = timedelta(minutes=30)  # of a collective operation: the others wait while the first writes a checkpoint


@dataclass
class Rank:
    """Says which of how many processes this is."""

    number: int = 0
    count: int = 1
    others: list[tuple[BaseProcess, Connection]] = field(default_factory=list)
    """Lists, in the first process, the others, each with the connection through which it sends the error that ends it."""

    def wait_until_started(self) -> None:
        """Waits, in the first process, until all others are about to join the group; raises the error of one that ended before that.

        Otherwise the first process would wait half an hour in the rendezvous for a process that died at its start.
        """
        for _, messages in self.others:
            try:
                messages.recv()
            except EOFError:
                self.check()

    def check(self) -> None:
        """Raises, in the first process, the error that ended another one."""
        for process, errors in self.others:
            try:
                if errors.poll():
                    raise errors.recv()
            except EOFError:  # it ended without sending an error; its exit code says how
                process.join()
            if process.exitcode not in (None, 0):
                raise RuntimeError(f"process {process.name} of the fine-tuning ended with exit code {process.exitcode}")


@contextmanager
def processes(job: Any, target: Callable[[Any, Rank], Any], count: int, folder: Path, cpu: bool) -> Iterator[Rank]:
    """Runs `target(job, rank)` in `count - 1` other processes; yields the Rank of this one, which is the first.

    Within the block, the processes can communicate through torch.distributed, and accelerate knows the rank. `folder` is a new folder for
    the rendezvous. An error that ends another process is raised when `Rank.check` is called or a collective operation fails.
    """
    rank = Rank(0, count)
    if count == 1:
        yield rank
        return
    spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    try:
        for number in range(1, count):
            receive, send = spawn.Pipe(duplex=False)
            process = spawn.Process(
                target=_other,
                args=(job, target, Rank(number, count), folder, cpu, send, os.getpid()),
                name=f"{number + 1}/{count}",
                daemon=True,
            )
            with isolated_children():
                process.start()
            send.close()
            rank.others.append((process, receive))
        rank.wait_until_started()
        with _environment(0, count):
            _join_group(rank, folder, cpu)
            yield rank
            for other, _ in rank.others:
                other.join()
    except RuntimeError:
        rank.check()  # a broken connection may only be a consequence of the error in another process
        raise
    finally:
        for other, _ in rank.others:
            other.kill()
            other.join()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _environment(number: int, count: int) -> AbstractContextManager[None]:
    """Sets the environment variables from which accelerate reads the rank, for the time of the training."""
    environment: AbstractContextManager[None] = patch_environment(
        rank=number, local_rank=number, world_size=count, local_world_size=count
    )
    return environment


def _join_group(rank: Rank, folder: Path, cpu: bool) -> None:
    if not cpu:
        torch.cuda.set_device(rank.number)
    torch.distributed.init_process_group(
        "gloo" if cpu else "nccl",
        init_method=f"file://{folder.resolve()}/rendezvous",  # no port that another could take first
        rank=rank.number,
        world_size=rank.count,
        timeout=TIMEOUT,
    )


def _other(
    job: Any, target: Callable[[Any, Rank], Any], rank: Rank, folder: Path, cpu: bool, errors: Connection, parent: int
) -> None:
    """Runs a process other than the first. It ignores signals: the first one tells the others when to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(parent)
    try:
        errors.send(None)
        with _environment(rank.number, rank.count):
            _join_group(rank, folder, cpu)
            target(job, rank)
    except TailfillError as error:
        errors.send(error)
