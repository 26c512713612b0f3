"""Defines the manifest: the small object whose presence means that a stage's result exists."""

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
    """Describes a committed file, whose bytes are at `blobs/sha256/<digest>`."""

    name: FileName
    digest: Digest
    size: Annotated[int, Field(ge=0, le=LARGEST_FILE)]


class Run(Section):
    """Records how the result was computed; it is not part of the digest."""

    created: str
    """Gives the time of the commit in UTC, ISO 8601."""
    seconds: float
    """Counts the wall seconds of the process that committed, including earlier interrupted ones."""
    device: str
    """Names the GPU; `cpu` without one."""
    device_seconds: float
    """Counts the GPU seconds of all processes of the stage; 0 on a CPU."""
    cpu_seconds: float | None = None
    """Counts the seconds of work without a GPU, over all processes of the stage; None in results from before this was recorded."""
    device_lost_seconds: float = 0.0
    """Counts the `device_seconds` from a process's last checkpoint (or part) until it was killed or stopped. This and the other numbers
    lack the last half minute, at most, of a process that was killed, as it could not be recorded."""
    cpu_lost_seconds: float = 0.0
    """Counts the `cpu_seconds` that were lost in the same way."""
    code: str
    """Gives the fingerprint of our modules that the stage imports."""
    libraries: dict[str, str]
    """Maps each library that computes to its version."""
    experiment: str | None = None
    """Names the experiment for which it was run: the first of those that share the result; None if it belongs to none."""


class Manifest(Section):
    """Lists a stage's files; it is written last and only once."""

    study: Name
    stage: Stage
    key: PartName
    version: int
    config: dict[str, Any]
    inputs: dict[str, Input]
    files: tuple[File, ...]
    summary: dict[str, Any]
    """Holds a few numbers for people and later stages, which then need not open a file."""
    run: Run

    @property
    def digest(self) -> str:
        """Returns the SHA-256 of everything but `run`: equal results have equal digests, wherever and whenever they were computed."""
        return canonical_digest(self.model_dump(mode="json", exclude={"run"}))

    def file(self, name: str) -> File:
        """Returns the file of that name; raises KeyError."""
        for file in self.files:
            if file.name == name:
                return file
        raise KeyError(name)

    def shards(self, stem: str) -> list[File]:
        """Returns the files whose names begin with `<stem>-`, in order: the parts of a set."""
        return sorted((file for file in self.files if file.name.startswith(f"{stem}-")), key=lambda file: file.name)
