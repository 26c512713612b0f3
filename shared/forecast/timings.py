"""Keeps what was timed on this machine in the user's cache folder, so that a forecast need not time it again.

A timing depends on the machine, on the versions of the libraries that compute, and on the work: the network, the size of its images and so on. It
belongs to no study, and all studies of a user share it.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from shared.artifacts.disk import whole_file
from shared.artifacts.keys import canonical_digest
from shared.benchmark import Range
from shared.config.base import Section
from shared.errors import TailfillError
from shared.log import Log

FOLDER = "timings"
"""Names the folder in the user's cache."""
FORM = 3
"""Counts the changes of how work is timed after which kept timings are of no use."""
LIBRARIES = ("torch", "timm", "diffusers")

Seconds = Annotated[float, Field(ge=0, le=1e9)]

log = Log("forecast")


class Timing(Section):
    """Holds what a kind of work takes, as it is kept."""

    machine: dict[str, str | int]
    work: list[Any]
    measured: str
    """Gives the time at which it was measured in UTC, ISO 8601."""
    busy_cores: Annotated[float, Field(ge=0, le=1e6)]
    """Gives how many cores other programs used at that time."""
    seconds: dict[str, Annotated[tuple[Seconds, ...], Field(min_length=3, max_length=3)]]
    """Maps the parts of the work to their seconds: low, middle and high."""
    numbers: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Maps the names of other properties, such as bytes, to their values."""

    def range(self, part: str) -> Range:
        """Returns the seconds of a part, `[3]`; raises KeyError if it has none of that name."""
        return np.array(self.seconds[part])


@dataclass(frozen=True)
class Machine:
    """Describes what a timing depends on of this machine."""

    processor: str
    cores: int
    """Counts the cores that this process may use."""
    gpus: tuple[str, ...]
    """Names the GPUs."""

    @classmethod
    def here(cls) -> Machine:
        """Returns this machine."""
        return cls(_processor(), len(os.sched_getaffinity(0)), _gpus())

    def device(self, wanted: str) -> str:
        """Returns the name of the device that `resources.device` stands for here: that of the first GPU, or `cpu`."""
        return self.gpus[0] if self.gpus and wanted != "cpu" else "cpu"


@dataclass(frozen=True)
class KeptTimings:
    """Reads and keeps timings of one device with a number of threads per process."""

    folder: Path
    machine: Machine
    device: str
    threads: int

    def find(self, work: list[Any]) -> Timing | None:
        """Returns the kept timing of a work, a JSON value that describes it; None if there is none, or if the file is damaged."""
        path = self._path(work)
        try:
            timing = Timing.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning(
                "a kept timing cannot be read and is measured again", path=path, reason=str(error).splitlines()[0]
            )
            return None
        return timing if timing.machine == self._described() and timing.work == json.loads(json.dumps(work)) else None

    def keep(self, work: list[Any], seconds: Mapping[str, Range], numbers: Mapping[str, int], busy: float) -> Timing:
        """Keeps a timing and returns it. If it cannot be written, it is only returned, and the log says so."""
        timing = Timing(
            machine=self._described(),
            work=work,
            measured=datetime.now(UTC).isoformat(timespec="seconds"),
            busy_cores=busy,
            seconds={part: tuple(map(float, found)) for part, found in seconds.items()},
            numbers=dict(numbers),
        )
        try:
            with whole_file(self._path(work)) as temporary:
                temporary.write_text(timing.model_dump_json(indent=1))
        except (OSError, TailfillError) as error:
            log.warning("a timing cannot be kept and is measured anew each time", reason=str(error))
        return timing

    def _path(self, work: list[Any]) -> Path:
        return self.folder / f"{canonical_digest([self._described(), work])}.json"

    def _described(self) -> dict[str, str | int]:
        return {
            "processor": self.machine.processor,
            "cores": self.machine.cores,
            "device": self.device,
            "threads": self.threads,
            "form": FORM,
            **{name: _version(name) for name in LIBRARIES},
        }


@cache
def _version(library: str) -> str:
    return version(library)


def _processor() -> str:
    """Returns the model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _gpus() -> tuple[str, ...]:
    """Returns the names of the GPUs as their driver gives them, without importing torch."""
    names = []
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        models = (line.partition(":")[2].strip() for line in file.read_text().splitlines() if line.startswith("Model:"))
        names.append(next(models, "GPU"))
    return tuple(names)
