"""Simulates verdicts of repetitions that test on a fold of the data set each, beside those on one test split for all.

python -m benchmarks.fold_simulation [--studies N]

All studies of a cell are drawn at once from the model of `docs/statistics.md`, and judged by the formulas of the report. All numbers are percentage
points. A training image has an effect of its own on the difference of two arms, so that repetitions which share training images are correlated. The effect
that is asked for is the mean over data sets, which the folds speak of; the single split speaks of its own training set, whose effect it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import click
import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from shared.metrics.forecast import ASSUMED_REPETITION, ASSUMED_REST, ASSUMED_UNIT

Floats = NDArray[np.float64]

REPETITION, UNIT, REST = 100 * ASSUMED_REPETITION, 100 * ASSUMED_UNIT, 100 * ASSUMED_REST
TRAINING = (0.0, 1.0, 2.0)
"""Lists standard deviations of what all training images of a repetition together do to the difference."""
CLASSES = 3  # that are judged
HELD_OUT = 0.15  # the usual share of a test split
ALPHA = 0.05


@dataclass(frozen=True)
class World:
    """Says what is true in the studies of a cell."""

    effect: float
    each: int
    """Counts the images of each judged class."""
    repetitions: int
    training: float
    """Gives the standard deviation of the training images' effect."""


@dataclass(frozen=True)
class Judged:
    """Holds shares of studies."""

    better: float
    worse: float
    covered: float
    """Gives the share whose interval of 95 % holds the true difference."""
    error: float
    """Gives the standard deviation of the mean differences from the true one."""

    @property
    def false(self) -> float:
        """Returns the share of false calls, if there is no effect."""
        return self.better + self.worse


def fold_differences(random: np.random.Generator, world: World, studies: int) -> Floats:
    """Returns the difference of two arms on each fold, `[studies, k]`, where folds are each other's training images."""
    k, n = world.repetitions, CLASSES * world.each / world.repetitions
    of_folds = random.normal(0, 1, (studies, k))  # what the images of a fold do to the arms that train on them
    trained = world.training * (of_folds.sum(axis=1, keepdims=True) - of_folds) / math.sqrt(k - 1)
    tested = random.normal(0, math.hypot(UNIT, REST) / math.sqrt(n), (studies, k))
    found: Floats = world.effect + trained + random.normal(0, REPETITION, (studies, k)) + tested
    return found


def judge_folds(random: np.random.Generator, world: World, studies: int) -> Judged:
    """Returns what studies with folds find, by the variance of `shared.metrics.outer_folds` and the sign-flip test."""
    found, k = fold_differences(random, world, studies), world.repetitions
    variance = (1 / k + 1 / (k - 1)) * found.var(axis=1, ddof=1)
    return _judge(found, variance, np.full(studies, k - 1.0), world.effect)


def judge_single(random: np.random.Generator, world: World, studies: int) -> Judged:
    """Returns what studies with one test split find, by the variance of `shared.metrics.two_way` and the sign-flip test."""
    k, n = world.repetitions, CLASSES * round(HELD_OUT * world.each)
    tested = random.normal(0, UNIT / math.sqrt(n), (studies, 1))
    rest = random.normal(0, math.hypot(REPETITION, REST / math.sqrt(n)), (studies, k))
    found = world.effect + tested + rest
    of_units = (REST**2 + k * UNIT**2) * random.chisquare(n - 1, studies) / (n - 1)
    of_rest = REST**2 * random.chisquare((k - 1) * (n - 1), studies) / ((k - 1) * (n - 1))
    of_repetitions = n * found.var(axis=1, ddof=1)
    both = of_repetitions + of_units - of_rest
    largest = np.maximum(both, np.maximum(of_repetitions, of_units))
    spread = of_repetitions**2 / (k - 1) + of_units**2 / (n - 1) + of_rest**2 / ((k - 1) * (n - 1))
    alone = np.where(of_repetitions >= of_units, k - 1, n - 1)
    freedom = np.maximum(np.where(both < largest, alone, largest**2 / spread), k - 1)
    return _judge(found, largest / (k * n), freedom, world.effect)


def _judge(found: Floats, variance: Floats, freedom: Floats, effect: float) -> Judged:
    mean, k = found.mean(axis=1), found.shape[1]
    error = np.sqrt(variance)
    signs = np.array([(1, *rest) for rest in product((1, -1), repeat=k - 1)])
    flip = (np.abs(found @ signs.T) >= np.abs(found.sum(axis=1))[:, None] - 1e-9).mean(axis=1)
    clear = (2 * stdtr(freedom, -np.abs(mean) / error) <= ALPHA) & (flip <= ALPHA)
    covered = np.abs(mean - effect) <= stdtrit(freedom, 1 - ALPHA / 2) * error
    return Judged(
        float((clear & (mean > 0)).mean()),
        float((clear & (mean < 0)).mean()),
        float(covered.mean()),
        float((mean - effect).std()),
    )


def cells() -> Iterator[tuple[int, int]]:
    """Yields the images of a judged class and the repetitions."""
    yield from product((110, 330, 1000), (6, 10))


@click.command()
@click.option("--studies", default=20_000, show_default=True, help="The number of simulated studies per cell.")
def main(studies: int) -> None:
    """Prints false calls, coverage, the true error of the mean and power as Markdown tables."""
    click.echo(f"{studies} studies per cell, in per cent; the error of the mean in points\n")
    names = [f"folds, training images {sd:g}" for sd in TRAINING]
    head = "| images per class | repetitions | " + " | ".join((*names, "single split")) + " |"
    rule = f"|{'---|' * (len(names) + 3)}"

    def judged(each: int, k: int, effect: float) -> list[Judged]:
        worlds = [World(effect, each, k, sd) for sd in TRAINING]
        found = [judge_folds(np.random.default_rng(1), world, studies) for world in worlds]
        return [*found, judge_single(np.random.default_rng(1), worlds[0], studies)]

    click.echo(f"False calls / intervals that hold the truth / error of the mean\n\n{head}\n{rule}")
    for each, k in cells():
        row = [f"{100 * f.false:.1f} / {100 * f.covered:.1f} / {f.error:.2f}" for f in judged(each, k, 0.0)]
        click.echo(f"| {each} | {k} | {' | '.join(row)} |")
    for effect in (2.0, 4.0, 8.0):
        click.echo(f"\nPower with an effect of {effect:g} points\n\n{head}\n{rule}")
        for each, k in cells():
            row = [f"{100 * f.better:.1f}" for f in judged(each, k, effect)]
            click.echo(f"| {each} | {k} | {' | '.join(row)} |")


if __name__ == "__main__":
    main()
