"""Measures how well `tailfill look` finds wrong labels: plants some in a data set and looks how high its ranking puts them.

python -m benchmarks.label_errors DATA|STUDY.yaml [--errors 200] [--images N] [--seeds 3] [--set PATH=VALUE]
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from jobs.cli.look import Listed, find, list_images, open_data
from shared.look.findings import Findings
from shared.look.images import sample


@dataclass(frozen=True)
class Measured:
    """Holds how well planted errors were found."""

    errors: int
    labels: int
    """Counts the labels that were judged."""
    average_precision: float
    """Gives the average precision of the ranking by the probability of the given label; a random ranking has `base_rate`."""
    suspects: int
    found: int
    """Counts the suspects that are planted errors."""

    @property
    def base_rate(self) -> float:
        """Returns the share of planted errors among the judged labels."""
        return self.errors / self.labels


def plant(listed: Listed, errors: int, rng: np.random.Generator) -> tuple[Listed, set[tuple[int, str]]]:
    """Returns the data with another class in one group of `errors` images, and the positions and groups of these."""
    images, planted, slices = list(listed.images), set[tuple[int, str]](), listed.schema.slices()
    for position in rng.permutation(len(images)).tolist():
        if len(planted) == errors:
            break
        group = listed.schema.groups[int(rng.integers(len(listed.schema.groups)))]
        labels = images[position].labels.copy()
        own = labels[slices[group.name]]  # a view
        if (own < 0).all():
            continue
        column = int(rng.integers(len(own)))
        if group.kind == "one":
            column = (int(own.argmax()) + 1 + int(rng.integers(len(own) - 1))) % len(own)
            own[:] = 0
        own[column] = 1 - own[column]
        images[position] = replace(images[position], labels=labels)
        planted.add((position, group.name))
    return replace(listed, images=images), planted


def measure(findings: Findings, listed: Listed, planted: set[tuple[int, str]]) -> Measured:
    """Compares what was found with what was planted in the same images."""
    place = {image.path: position for position, image in enumerate(listed.images)}
    ranking = [
        (each.confidence, place[findings.seen.images[each.image].path], group.group, each.suspect)
        for group in findings.judged or []
        for each in group.ranking
    ]
    ranking.sort(key=lambda each: each[0])
    hits = np.array([(position, group) in planted for _, position, group, _ in ranking])
    suspect = np.array([each[3] for each in ranking])
    return Measured(
        int(hits.sum()), len(hits), average_precision(hits), int(suspect.sum()), int((hits & suspect).sum())
    )


def average_precision(hits: NDArray[np.bool_]) -> float:
    """Returns the mean, over all hits, of the share of hits up to there; `hits` `[n]` are in the order of the ranking."""
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("data", metavar="DATA|STUDY.yaml")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Replace a value of the study.")
@click.option("--errors", type=click.IntRange(min=1), default=200, show_default=True, help="Plant so many.")
@click.option("--images", type=click.IntRange(min=20), help="Use a sample of so many images [all].")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Repeat with other errors.")
def main(data: str, sets: Sequence[str], errors: int, images: int | None, seeds: int) -> None:
    """Plant wrong labels in DATA, and print how well they are found."""
    from shared import log

    log.configure("text")
    with tempfile.TemporaryDirectory() as scratch:
        listed = list_images(data, open_data(data, Path(scratch) / "look", sets, Path(scratch)))
        if images is not None:
            chosen = sample(np.stack([image.labels for image in listed.images]), images)
            listed = replace(listed, images=[listed.images[i] for i in chosen])
        for seed in range(seeds):
            wrong, planted = plant(listed, errors, np.random.default_rng(seed))
            found = measure(find(wrong, len(listed.images)), wrong, planted)
            click.echo(
                f"seed {seed}: average precision {found.average_precision:.3f} (base rate {found.base_rate:.4f}); {found.errors} errors in {found.labels} "
                f"labels; {found.suspects} suspects, of which {found.found} are planted"
            )


if __name__ == "__main__":
    main()
