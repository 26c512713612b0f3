"""Records the machine of a measurement, its load, and what a computation takes of a GPU."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import mean

import torch

from shared.device import device_name, release_memory

SAMPLE_MILLISECONDS = 200


@dataclass
class Machine:
    """Holds the settings and the load of a machine."""

    device: str
    cores: int
    instructions: str
    threads: int
    """Counts the threads of an operation of torch on the CPU."""
    load: list[float] = field(default_factory=list)
    """Holds the load averages over one minute, before the first round and after each."""

    @classmethod
    def of(cls, device: torch.device) -> Machine:
        """Returns the description of this machine, with its load as it is now."""
        capability = torch.backends.cpu.get_cpu_capability()
        machine = cls(device_name(device), os.cpu_count() or 1, capability, torch.get_num_threads())
        machine.look()
        return machine

    def look(self) -> None:
        """Adds the load as it is now."""
        self.load.append(os.getloadavg()[0])

    def __str__(self) -> str:
        return (
            f"{self.device}, {self.cores} cores ({self.instructions}), {self.threads} threads of torch; "
            f"load average {min(self.load):.1f} to {max(self.load):.1f}."
        )


def cpu_seconds() -> float:
    """Returns the seconds of CPU time that this process and its ended children have taken, which other load on a machine changes little."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


@dataclass
class DeviceUse:
    """Holds what a computation took of a GPU; on a CPU, and where the driver does not say it, None."""

    peak_bytes: int | None = None
    """Counts the most bytes of the GPU's memory that tensors took at once."""
    samples: list[tuple[float, float]] = field(default_factory=list)
    """Holds the shares of time in which the GPU computed, over the last sampling period of its driver, each with the time of `time.monotonic()`."""

    def busy(self, begin: float, end: float) -> float | None:
        """Returns the mean share between two times."""
        within = [share for at, share in self.samples if begin <= at <= end]
        return mean(within) if within else None


@contextmanager
def device_use(device: torch.device) -> Iterator[DeviceUse]:
    """Yields what the block takes of a GPU: the peak is there after it, and `samples` grow meanwhile.

    The share of time comes from NVML by `nvidia-smi`, which is there with every driver; nothing is sampled if it is not on PATH.
    """
    use = DeviceUse()
    if device.type != "cuda":
        yield use
        return
    release_memory()
    torch.cuda.reset_peak_memory_stats(device)
    with _sampling(f"GPU-{torch.cuda.get_device_properties(device).uuid}", use.samples):
        yield use
    use.peak_bytes = torch.cuda.max_memory_allocated(device)


@contextmanager
def _sampling(gpu: str, samples: list[tuple[float, float]]) -> Iterator[None]:
    """Adds to `samples` while the block runs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        yield
        return
    query = ["--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"--loop-ms={SAMPLE_MILLISECONDS}"]
    with subprocess.Popen([program, f"--id={gpu}", *query], stdout=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=_read, args=(process, samples))
        reader.start()
        try:
            yield
        finally:
            process.terminate()
            reader.join()


def _read(process: subprocess.Popen[str], samples: list[tuple[float, float]]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip().isdecimal():  # a part of a GPU (MIG) has no such share, and nvidia-smi says [N/A]
            samples.append((time.monotonic(), int(line) / 100))
