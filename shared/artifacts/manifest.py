"""The manifest: the one small object whose presence means that a stage's result exists."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from shared.artifacts.keys import canonical_digest
from shared.config.base import Section
from shared.config.stages import Stage
from shared.config.study import Name
from shared.config.task import Input
from shared.names import Digest, FileName, PartName

LARGEST_FILE = 5 << 40  # bytes; no S3 server takes larger objects in parts


class File(Section):
    """A committed file: its bytes are at `blobs/sha256/<digest>`."""

    name: FileName
    digest: Digest
    size: Annotated[int, Field(ge=0, le=LARGEST_FILE)]


class Run(Section):
    """How the result came about: recorded, no part of the digest."""

    created: str
    """UTC, ISO 8601."""
    seconds: float
    """Wall time of the process that committed, earlier interrupted ones included."""
    device: str
    """`cpu`, or the GPU's name."""
    device_seconds: float
    """Seconds for which a GPU was held, over all processes of the stage; 0 on a CPU."""
    cpu_seconds: float | None = None
    """Seconds of work without a GPU, over all processes of the stage; None in results of before this was recorded."""
    device_lost_seconds: float = 0.0
    """Of `device_seconds`, what processes did after their last checkpoint (or part) before they vanished or were stopped. Not in here, nor in
    any other of these numbers: the last half minute at most of a process that was killed, as nobody was left to record it."""
    cpu_lost_seconds: float = 0.0
    """The same of `cpu_seconds`."""
    code: str
    """Fingerprint of our modules that the stage imports."""
    libraries: dict[str, str]
    """Versions of the libraries that compute."""
    experiment: str | None = None
    """For which experiment it was run, the first of those that share it; None for what belongs to none."""


class Manifest(Section):
    """Lists a stage's files; written last, and only once."""

    study: Name
    stage: Stage
    key: PartName
    version: int
    config: dict[str, Any]
    inputs: dict[str, Input]
    files: tuple[File, ...]
    summary: dict[str, Any]
    """A few numbers that people and later stages want without opening a file."""
    run: Run

    @property
    def digest(self) -> str:
        """SHA-256 of everything but `run`: equal results have equal digests, wherever and whenever they were made."""
        return canonical_digest(self.model_dump(mode="json", exclude={"run"}))

    def file(self, name: str) -> File:
        """The file of that name; raises KeyError."""
        for file in self.files:
            if file.name == name:
                return file
        raise KeyError(name)
