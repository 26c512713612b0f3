"""Several processes for one fine-tuning, one a GPU: this one is the first, and starts the others.

The others belong to it: they end with it, however it ends, and what ends one of them ends it.
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
    """Which of how many processes this is."""

    number: int = 0
    count: int = 1
    others: list[tuple[BaseProcess, Connection]] = field(default_factory=list)
    """In the first process: the others, and what they have to say when an error ends them."""

    def wait_until_started(self) -> None:
        """In the first process: returns once all others are about to join the group; raises what ended one before that.

        Without it the first would wait in the rendezvous, for half an hour, for a process that died as it started.
        """
        for _, messages in self.others:
            try:
                messages.recv()
            except EOFError:
                self.check()

    def check(self) -> None:
        """In the first process: raises what ended another one."""
        for process, errors in self.others:
            try:
                if errors.poll():
                    raise errors.recv()
            except EOFError:  # it ended without a word; its exit code says how
                process.join()
            if process.exitcode not in (None, 0):
                raise RuntimeError(f"process {process.name} of the fine-tuning ended with exit code {process.exitcode}")


@contextmanager
def processes(job: Any, target: Callable[[Any, Rank], Any], count: int, folder: Path, cpu: bool) -> Iterator[Rank]:
    """Runs `target(job, rank)` in `count - 1` other processes; this one is the first, and gets its Rank.

    Within the `with` statement they can reach each other through torch.distributed, and accelerate knows its place. `folder` is a
    new one, for the rendezvous. What ends another process is raised here, where `Rank.check` is called or a collective breaks.
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
        rank.check()  # a broken connection is but the echo of what ended the other one
        raise
    finally:
        for other, _ in rank.others:
            other.kill()
            other.join()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _environment(number: int, count: int) -> AbstractContextManager[None]:
    """What accelerate reads to learn its place; set for the time of the training only."""
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
    """A process other than the first. Signals are for the first one, which tells the others when to stop."""
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
