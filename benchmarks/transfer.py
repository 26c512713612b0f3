"""Measures how fast files go to an S3 server and back, by tailfill's artifacts and by plain boto3, which run alternately on the same server.

python -m benchmarks.transfer [--case FILESxMIB ...] [--rounds N] [--store s3://bucket/prefix] [--json FILE]

Tailfill does more: it computes each file's SHA-256 before an upload and after a download, and a folder's files are checked for names that would
leave it.
"""

from __future__ import annotations

import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import boto3
import click
import numpy as np
import torch

from benchmarks.comparison import run_comparison
from benchmarks.machine import Machine
from benchmarks.tables import markdown, spread, times
from shared import log
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.manifest import File
from shared.artifacts.open import split_s3
from shared.artifacts.remote import PARALLEL, local_folder
from shared.artifacts.s3 import S3Store
from shared.errors import ConfigError, InputError
from shared.services.s3 import BUCKET, ready_seaweedfs, start_seaweedfs
from shared.settings import Settings

MIB = 1 << 20
CASES = ("512x32", "4x256")
UPLOAD, DOWNLOAD = "upload", "download, one by one"
FOLDER = f"download of a folder, {PARALLEL} at a time against one by one"


@dataclass(frozen=True)
class Case:
    """Says how many files are transferred, and of how many bytes together."""

    files: int
    size: int

    @classmethod
    def parse(cls, text: str) -> Case:
        """Returns the case that FILESxMIB names; raises ConfigError for anything else."""
        found = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text, re.ASCII)
        if found is None:
            raise ConfigError(f"--case: must be the number of files and of MiB, like {CASES[0]}; got {text!r}")
        files, size = int(found[1]), int(found[2]) * MIB
        return cls(files, size)

    def write(self, folder: Path) -> list[Path]:
        """Writes the files, of random bytes, and returns their paths."""
        random, paths = np.random.default_rng(0), []
        for number, rows in enumerate(np.array_split(np.arange(self.size // 1024), self.files)):
            paths.append(folder / f"{number:06d}.bin")
            paths[-1].write_bytes(random.bytes(max(1, len(rows)) * 1024))
        return paths

    def __str__(self) -> str:
        return f"{self.files} files, {self.size // MIB} MiB"


@dataclass
class Speeds:
    """Holds the megabytes per second of one operation, per round."""

    operation: str
    tailfill: list[float] = field(default_factory=list)
    boto3: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """Holds all measurements, and the machine that they were made on."""

    server: str
    machine: Machine
    cases: Mapping[str, Sequence[Speeds]]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--case", "cases", multiple=True, default=CASES, show_default=True, metavar="FILESxMIB", help="So many files of so many MiB in all.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="How often each side runs.")
@click.option("--store", metavar="s3://BUCKET/PREFIX", help="A server of yours, by AWS_ENDPOINT_URL_S3 and keys [SeaweedFS on this machine].")  # fmt: skip
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also writes every figure here.")
def main(cases: Sequence[str], rounds: int, store: str | None, json_file: Path | None) -> None:
    """Transfer the same files alternately by tailfill and by plain boto3, and compare."""

    def transferred(temporary: Path) -> Comparison:
        chosen = [Case.parse(case) for case in cases]
        with _server(store, temporary) as (settings, bucket, prefix):
            pair = Pair(settings, bucket, f"{prefix}transfer-{uuid.uuid4().hex}", temporary)
            try:
                return compare(pair, chosen, rounds, store or "SeaweedFS on this machine")
            finally:
                pair.remove()

    run_comparison(transferred, table, json_file)


@contextmanager
def _server(store: str | None, folder: Path) -> Iterator[tuple[Settings, str, str]]:
    """Yields the settings of a server, a bucket, and what keys in it begin with."""
    if store is not None:
        bucket, prefix = split_s3(store)
        yield Settings.from_environment(), bucket, f"{prefix}/" if prefix else ""
        return
    seaweedfs = ready_seaweedfs(folder / "server", start_seaweedfs(folder / "server"))
    try:
        yield Settings.from_environment(seaweedfs.environment()), BUCKET, ""
    finally:
        seaweedfs.server.stop()


def compare(pair: Pair, cases: Sequence[Case], rounds: int, server: str) -> Comparison:
    """Transfers the files of each case alternately both ways, after one file of each that does not count."""
    machine = Machine.of(torch.device("cpu"))
    found: dict[str, Sequence[Speeds]] = {}
    progress = log.Log("benchmark")
    for case in cases:
        with tempfile.TemporaryDirectory(dir=pair.folder) as folder:
            paths = case.write(Path(folder))
            size = sum(path.stat().st_size for path in paths) / 1e6
            pair.round(paths[:1], "first")
            speeds = [Speeds(operation) for operation in (UPLOAD, DOWNLOAD, FOLDER)]
            for _ in range(rounds):
                for speed, (ours, theirs) in zip(speeds, pair.round(paths, f"{case.files}x{case.size}"), strict=True):
                    speed.tailfill.append(size / ours)
                    speed.boto3.append(size / theirs)
                    progress.info(str(case), operation=speed.operation, tailfill=size / ours, boto3=size / theirs)
                machine.look()
            found[str(case)] = speeds
    return Comparison(server, machine, found)


class Pair:
    """Transfers files either way, below one prefix of a bucket."""

    def __init__(self, settings: Settings, bucket: str, prefix: str, folder: Path) -> None:
        self.settings, self.bucket, self.prefix, self.folder = settings, bucket, prefix, folder
        self.store = S3Store(bucket, f"{prefix}/tailfill", settings)
        self.client = plain_client(settings)

    def round(self, paths: Sequence[Path], name: str) -> list[tuple[float, float]]:
        """Returns the seconds of tailfill and of boto3 for each operation; `name` is that of the folder of boto3's uploads."""
        folder = f"{self.prefix}/{name}"
        files: list[File] = []
        fetched: list[Path] = []
        with tempfile.TemporaryDirectory(dir=self.folder) as temporary:
            scratch = Path(temporary)
            artifacts = Artifacts(self.store, "transfer", scratch / "cache")
            seconds = [
                (
                    _seconds(lambda: files.extend(artifacts.upload(path.name, path) for path in paths)),
                    _seconds(lambda: self._upload(paths, folder)),
                ),
                (
                    _seconds(lambda: fetched.extend(artifacts.fetch(file) for file in files)),
                    _seconds(lambda: self._download(self.client, paths, folder, scratch / "plain")),
                ),
                (  # both make a client of their own for it
                    _seconds(lambda: local_folder(f"s3://{self.bucket}/{folder}", self.settings, scratch)),
                    _seconds(
                        lambda: self._download(plain_client(self.settings), paths, folder, scratch / "plain-folder")
                    ),
                ),
            ]
            copied = [[scratch / part / path.name for path in paths] for part in ("plain", "plain-folder", name)]
            for received in (fetched, *copied):
                if any(path.read_bytes() != other.read_bytes() for path, other in zip(paths, received, strict=True)):
                    raise InputError(f"{folder}: a file came back with other bytes; the server is damaged")
        return seconds

    def remove(self) -> None:
        """Removes all objects below the prefix."""
        whole = S3Store(self.bucket, self.prefix, self.settings)
        for key in list(whole.list("")):
            whole.delete(key)

    def _upload(self, paths: Sequence[Path], folder: str) -> None:
        for path in paths:
            self.client.upload_file(str(path), self.bucket, f"{folder}/{path.name}")

    def _download(self, client: Any, paths: Sequence[Path], folder: str, target: Path) -> None:
        target.mkdir()
        for path in paths:
            client.download_file(self.bucket, f"{folder}/{path.name}", str(target / path.name))


def plain_client(settings: Settings) -> Any:
    """Returns boto3's own client, with all its defaults."""
    keys: dict[str, str] = {}
    if settings.s3_access_key is not None and settings.s3_secret_key is not None:
        keys["aws_access_key_id"] = settings.s3_access_key.get_secret_value()
        keys["aws_secret_access_key"] = settings.s3_secret_key.get_secret_value()
        if settings.s3_session_token is not None:
            keys["aws_session_token"] = settings.s3_session_token.get_secret_value()
    return boto3.client("s3", endpoint_url=settings.s3_endpoint, region_name=settings.s3_region, **keys)


def _seconds(run: Callable[[], object]) -> float:
    begun = time.monotonic()
    run()
    return time.monotonic() - begun


def table(found: Comparison) -> str:
    """Returns the comparison as a Markdown table."""
    rows = [("MB/s", "tailfill", "boto3", "ratio")]
    for case, speeds in found.cases.items():
        for speed in speeds:
            ratio = times(mean(speed.tailfill) / mean(speed.boto3))
            rows.append((f"{case}: {speed.operation}", spread(speed.tailfill, 1), spread(speed.boto3, 1), ratio))
    return "\n".join([markdown(rows), "", f"{found.server}. {found.machine}"])


if __name__ == "__main__":
    main()
