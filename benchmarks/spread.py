"""Compares the scores of a trial and of a plain loop over many seeds, in the time that `benchmarks.trial` takes for one.

python -m benchmarks.spread STUDY.yaml [--set PATH=VALUE] [--images N] [--val-images N] [--seeds N]

If only the head is trained and images are at most mirrored, then the plain loop computes one of two feature vectors of an image in each
epoch. Here its transform and network compute both vectors once, and its loader, loss, optimizer and scores train its head on them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.options import data_options
from benchmarks.outcome import Outcome
from benchmarks.plain_loop import Pictures, PlainLoop, PlainNetwork, check_arm, transform
from benchmarks.tables import spread
from benchmarks.tailfill_trial import Bench
from shared import log
from shared.classifier.augment import FLIP
from shared.config.load import load_study
from shared.data.imageset import ImageSet
from shared.device import pick_device
from shared.errors import ConfigError, TailfillError

GROUP = 32  # images per pass through the network


class FixedFeatures(Dataset[tuple[Tensor, Tensor]]):
    """Returns the frozen network's features of an image or of its mirror image, chosen at random at each access."""

    def __init__(self, views: list[Tensor], labels: NDArray[np.int8]) -> None:
        self.views, self.labels = views, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor]:
        mirrored = len(self.views) > 1 and float(torch.rand(())) < FLIP
        return self.views[int(mirrored)][position], torch.from_numpy(self.labels[position])


def fixed_features(network: PlainNetwork, images: ImageSet, resolution: int, mirror: bool) -> Tensor:
    """Returns the features `[n, F]` of the images, or of their mirror images, from the network without its head, in eval mode."""
    pictures, found = Pictures(images, transform("none", 0.0, resolution)), []
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(pictures), GROUP):
            batch = torch.stack([pictures[i][0] for i in range(start, min(start + GROUP, len(pictures)))])
            found.append(network.trunk(network.parts.normalised(batch.flip(3) if mirror else batch)))
    return torch.cat(found).clone()


class HeadLoops:
    """Trains plain loops on features that the frozen network computed once."""

    def __init__(self, bench: Bench) -> None:
        """Computes the features; raises ConfigError if an image can have more than two feature vectors."""
        self.bench, arm = bench, bench.config.arm
        check_arm(arm)
        if arm.classifier.trainable != "head" or arm.augmentation not in ("none", "basic") or arm.training.erasing:
            raise ConfigError(
                "only for classifier.trainable: head, augmentation: none or basic and training.erasing: 0; else `benchmarks.trial`"
            )
        loop = self._loop(0)
        mirrors = (False, True) if arm.augmentation == "basic" else (False,)
        self.train = [fixed_features(loop.whole, bench.train, loop.resolution, mirror) for mirror in mirrors]
        self.val = fixed_features(loop.whole, bench.val, loop.resolution, False)

    def run(self, seed: int) -> Outcome:
        """Trains with one seed."""
        loop, bench = self._loop(seed), self.bench
        loop.network = loop.whole.head
        loop.batches = loop.loader(FixedFeatures(self.train, bench.train.labels), 0, shuffle=True)
        loop.val_batches = loop.loader(FixedFeatures([self.val], bench.val.labels), 0)
        return loop.run(bench.config.search.epochs)

    def _loop(self, seed: int) -> PlainLoop:
        return PlainLoop(self.bench, pick_device("cpu"), 0, seed)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@data_options
@click.option("--seeds", type=click.IntRange(min=2), default=8, show_default=True, help="Trainings of each kind.")
def main(study: Path, sets: tuple[str, ...], images: int | None, val_images: int | None, seeds: int) -> None:
    """Train the head of STUDY's first experiment with many seeds, both as a trial and as a plain loop, and compare the scores."""
    log.configure("text")
    with tempfile.TemporaryDirectory() as folder:
        try:
            bench = Bench.make(load_study(study, sets), Path(folder), images, val_images)
            loops = HeadLoops(bench)
        except TailfillError as error:
            raise click.ClickException(str(error)) from error
        trials = [bench.run(seed, Path(folder)) for seed in range(seeds)]
        plain = [loops.run(seed) for seed in range(seeds)]
    click.echo(f"| mean ± standard deviation over {seeds} seeds | trial | plain loop |\n|---|---|---|")
    for name, attribute in (("val accuracy", "accuracy"), ("val macro-F1", "macro_f1")):
        cells = [spread([float(getattr(outcome, attribute)) for outcome in each]) for each in (trials, plain)]
        click.echo(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
