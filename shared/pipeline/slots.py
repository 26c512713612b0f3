"""Shares the cores and GPUs of this machine among stage processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.config.resolve import ResolvedStudy
from shared.config.stages import FinetuneConfig
from shared.diffusion.generators import generator_kind
from shared.memory import memory_share
from shared.pipeline.plan import Step

# otherwise glibc returns a step's tensors to the kernel after each use, and their page faults cost a tenth of a small network's training
MALLOC_SETTINGS = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
GRACE_SECONDS = 3.0  # Ctrl-C ends everything within 5 seconds, and the services need 2 of them


@dataclass
class Slots:
    """Divides this machine into slots: one stage process runs in each, and may use a share of the cores and GPUs."""

    count: int
    gpus: int
    """Counts the GPUs that the study may use."""

    @classmethod
    def of_machine(cls, study: ResolvedStudy) -> Slots:
        """Returns one slot per GPU if the study may use any, else one per core; `resources.processes` overrides the number."""
        gpus = 0 if study.resources.device == "cpu" else len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
        return cls(study.resources.processes or gpus or len(os.sched_getaffinity(0)), gpus)

    def take(self, free: list[int], most_gpus: int) -> list[int]:
        """Returns the slots that a process gets, out of the free ones.

        That is one slot. But if all are free, it is as many as together have the `most_gpus` GPUs that the process can use.
        """
        if most_gpus == 1 or len(free) < self.count:
            return free[:1]
        enough = (free[:n] for n in range(1, len(free)) if len(self.gpus_of(free[:n])) >= most_gpus)
        return next(enough, list(free))

    def gpus_of(self, slots: Sequence[int]) -> list[int]:
        """Returns the GPUs of some slots. Each slot has an equal share; if there are more slots than GPUs, several share one."""
        shares = (range(slot % self.gpus, self.gpus, self.count) for slot in slots if self.gpus)
        return sorted({gpu for share in shares for gpu in share})

    def environment(self, slots: Sequence[int]) -> dict[str, str]:
        """Returns the environment variables that limit a process to its threads, GPUs and share of the memory.

        The number of threads depends on the machine and not on what is free, so that results do not vary from run to run.
        """
        threads = str(max(1, len(os.sched_getaffinity(0)) // self.count))
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        own = {"TAILFILL_GRACE_SECONDS": str(int(GRACE_SECONDS)), "TAILFILL_MEMORY": str(memory_share(self.count))}
        device = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, self.gpus_of(slots)))} if self.gpus else MALLOC_SETTINGS
        return dict.fromkeys(names, threads) | own | device


def gpus_of_step(step: Step, gpus: int) -> int:
    """Returns how many of the machine's GPUs a process of the step can use: one, or several for the training of some generators."""
    if not isinstance(step.config, FinetuneConfig):
        return 1
    config = step.config.finetune
    return generator_kind(config.generator).most_gpus(config, gpus)
