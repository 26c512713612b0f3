"""Measures how time and memory grow with the number of images, from `init` to a trial: `python -m benchmarks.size WORKDIR N...`.

Each size is a folder of drawn images of 64 pixels, 30 classes of Zipf sizes in three folders of splits. The study that `init` writes is run with
one trial and one epoch on real images, so that what is measured is reading, decoding, near-copies, the frozen network and the shards.
The time of each stage is that of its manifest. Memory is that of all processes of the command together, without mapped files,
which the system gives back when it needs room. For a hard limit, run it in a container or control group of 4 GiB.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import psutil
from PIL import Image

CLASSES, SIDE = 30, 64
SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}
SETTINGS = (
    "verdict=none",
    "search={trials: 1, epochs: 1}",
    "final={seeds: 1, epochs: 1}",
    "experiments=[{name: real, images: real}]",
    "augmentation=none",
)
MIB = 1 << 20


@dataclass(frozen=True)
class Measured:
    """Holds the time and the memory of one command."""

    seconds: float
    most_mib: float
    """Gives the most memory that its processes had at once, without mapped files."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("workdir", type=click.Path(path_type=Path))
@click.argument("sizes", nargs=-1, required=True, type=click.IntRange(min=1000), metavar="N...")
def main(workdir: Path, sizes: tuple[int, ...]) -> None:
    """Measure N images each, in WORKDIR. What is there is not made again, so a measurement that was ended goes on with the stage that it was in."""
    click.echo("| images | command or stage | seconds | images/s | memory, MiB | load |\n|---|---|---|---|---|---|")
    for size in sizes:
        folder = workdir / str(size)
        draw(folder / "images", size)
        study = folder / "study.yaml"
        if not study.exists():
            init = run("init", str(folder / "images"), "--out", str(study))
            row(size, "init", init.seconds, f"{init.most_mib:.0f}")
        sets = [part for setting in SETTINGS for part in ("--set", setting)]
        continued = (folder / "work").exists()
        whole = run("run", str(study), *sets, "--workdir", str(folder / "work"))
        status = subprocess.run(
            command("status", "--workdir", str(folder / "work"), "--json"), check=True, capture_output=True
        )
        for stage in json.loads(status.stdout):
            row(size, stage["stage"], stage["seconds"], "")
        row(size, "run, continued" if continued else "run, whole", whole.seconds, f"{whole.most_mib:.0f}")


def row(size: int, what: str, seconds: float, memory: str) -> None:
    """Prints one row of the table."""
    click.echo(
        f"| {size:,} | {what} | {seconds:.0f} | {size / max(seconds, 1e-9):.0f} | {memory} | {os.getloadavg()[0]:.1f} |"
    )


def draw(folder: Path, size: int) -> None:
    """Writes the images, unless they are there: a gradient and a disc, whose hues and places follow from class and number."""
    if (folder / "complete").exists():
        return
    shares = 1 / np.arange(1, CLASSES + 1)
    labels = np.repeat(np.arange(CLASSES), np.maximum(1, (size * shares / shares.sum()).astype(int)))
    labels = np.concatenate([labels, np.zeros(max(0, size - len(labels)), int)])[:size]
    for split in SPLITS:
        for label in range(CLASSES):
            (folder / split / f"class-{label:02d}").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    splits = random.choice(list(SPLITS), size, p=list(SPLITS.values()))
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    for number, (label, split) in enumerate(zip(labels.tolist(), splits.tolist(), strict=True)):
        grain = random.integers(0, 256, (8, 8, 3), np.uint8)
        x, y, radius = random.integers(16, 48), random.integers(16, 48), 6 + label % 10
        pixels = np.asarray(Image.fromarray(grain).resize((SIDE, SIDE), Image.Resampling.BILINEAR)).copy()
        pixels[(across - x) ** 2 + (down - y) ** 2 < radius**2] = np.array(
            [label * 8, 255 - label * 8, label * 37 % 256]
        )
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
        (folder / split / f"class-{label:02d}" / f"{number:07d}.jpg").write_bytes(buffer.getvalue())
    (folder / "complete").touch()


def run(*arguments: str) -> Measured:
    """Runs the command, and watches the memory of its processes; raises CalledProcessError if it fails."""
    began = time.monotonic()
    with subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL) as process:
        watcher = Watcher(process.pid)
        watcher.start()
        code = process.wait()
    watcher.join()
    if code:
        raise subprocess.CalledProcessError(code, arguments)
    return Measured(time.monotonic() - began, watcher.most / MIB)


def command(*arguments: str) -> list[str]:
    """Returns the command line of `tailfill` with these arguments."""
    return [sys.executable, "-m", "jobs", *arguments]


class Watcher(threading.Thread):
    """Samples the memory of a process and its children four times per second, until it has ended."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self.most = 0

    def run(self) -> None:
        """Watches."""
        while psutil.pid_exists(self._pid):
            self.most = max(self.most, self._now())
            time.sleep(0.25)

    def _now(self) -> int:
        try:
            parent = psutil.Process(self._pid)
            found = [each.memory_info() for each in (parent, *parent.children(recursive=True))]
        except psutil.NoSuchProcess:  # one has ended meanwhile
            return 0
        return sum(each.rss - each.shared for each in found)


if __name__ == "__main__":
    main()
