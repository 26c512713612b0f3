"""Holds what both sides of the comparison of fine-tunings are told, and what is measured of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from benchmarks.machine import DeviceUse


@dataclass(frozen=True)
class Options:
    """Holds the settings of a fine-tuning."""

    method: str
    steps: int
    batch_size: int
    resolution: int
    precision: str
    rank: int
    gradient_checkpointing: bool
    workers: int
    """Counts the processes of the plain loop that decode."""
    learning_rate: float = 1e-4
    seed: int = 1


@dataclass(frozen=True)
class Run:
    """Holds the measurements of one fine-tuning."""

    seconds: float
    """Counts the seconds of the whole."""
    cpu_seconds: float
    """Counts the seconds of CPU time of the whole, in all its processes."""
    once: float
    """Counts those outside of the steps: loading, caching, and writing the weights."""
    per_step: float
    """Gives those of a step, after the first quarter of the steps."""
    loss: float
    """Gives the mean loss."""
    peak_bytes: int | None
    busy: float | None
    """Gives the share of time in which the GPU computed, in the second half of the steps."""

    @classmethod
    def of(
        cls,
        seconds: float,
        cpu: float,
        marks: Sequence[tuple[int, float]],
        losses: Sequence[float],
        use: DeviceUse,
        trained: float,
    ) -> Run:
        """Takes the steps after which the device was waited for, each with the seconds since the steps began, and the time when they had ended."""
        steps, last = marks[-1]
        begin, at = next((mark for mark in marks[:-1] if mark[0] >= steps / 4), (0, 0.0))
        return cls(
            seconds=seconds,
            cpu_seconds=cpu,
            once=seconds - last,
            per_step=(last - at) / (steps - begin),
            loss=mean(losses),
            peak_bytes=use.peak_bytes,
            busy=use.busy(trained - last / 2, trained),
        )
