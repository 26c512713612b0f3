"""Simulates how often a verdict is false, and how often it finds an effect: today's design against the one before.

python -m benchmarks.verdict_simulation [--studies N]

Every study is drawn from the model of `docs/statistics.md` and judged by the project's own functions. All numbers are percentage points. An arm
has a quality per candidate of hyperparameters; a search measures it with noise and takes the best; a training adds the noise of its
seed, a generated arm that of its pool and generator. The means of a study are drawn, its mean squares from their chi-square distributions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import click
import numpy as np
from numpy.typing import NDArray

from shared.metrics.forecast import ASSUMED_REST, ASSUMED_UNIT
from shared.metrics.statistics import sign_flip_p
from shared.metrics.two_way import TwoWay

Floats = NDArray[np.float64]

SEARCH, SEED, POOL, GENERATOR, INTERACTION = 0.85, 0.6, 0.3, 0.3, 0.5
"""Gives the standard deviations of the difference of two independent searches of six trials, of a training, of a pool, of a generator, and of
what an arm makes of a candidate beside what every arm does."""
UNIT, REST = 100 * ASSUMED_UNIT, 100 * ASSUMED_REST
VALIDATION = 1.0  # the noise of a trial's score, in standard deviations of the candidates' quality
CLASSES = 3  # that are judged
ALPHA = 0.05
SPREAD_DRAWS = 200_000


@dataclass(frozen=True)
class Design:
    """Says how a study repeats its trainings."""

    name: str
    repetitions: int
    candidates: int
    """Counts the trials of one search."""
    search: Literal["one per arm", "each repetition"]
    generators: Literal["one", "each"]
    pools: int
    test: Literal["repetitions", "both"]


BEFORE = Design("before: one search, seeds", 10, 6, "one per arm", "one", 2, "repetitions")
AFTER = Design("repeated pipeline", 10, 4, "each repetition", "each", 10, "both")
DESIGNS = (
    BEFORE,
    replace(BEFORE, name="before, with 40 trials", candidates=40),
    replace(AFTER, name="repeated pipeline, sign-flip only", test="repetitions"),
    AFTER,
    replace(AFTER, name="repeated pipeline, 6 repetitions", repetitions=6),
)


@dataclass(frozen=True)
class World:
    """Says what is true in the studies of a cell."""

    effect: float
    """Gives what generated images add, on average over pipelines."""
    each: int
    """Counts the test images of each judged class."""
    interaction: float
    quality: float
    """Gives the standard deviation of the candidates' quality."""


def winners(random: np.random.Generator, shape: tuple[int, ...], design: Design, world: World, arms: int) -> Floats:
    """Returns the quality of the candidate that each arm's search takes, `[arms, *shape]`; the arms of a repeated pipeline try the same candidates."""
    candidates = (*shape, design.candidates)
    shared = random.normal(0, world.quality, (1, *candidates))
    if design.search == "one per arm":
        shared = random.normal(0, world.quality, (arms, *candidates))
    quality = shared + random.normal(0, world.interaction, (arms, *candidates))
    seen = quality + random.normal(0, VALIDATION * world.quality, quality.shape)
    taken: NDArray[np.int64] = seen.argmax(axis=-1)
    best: Floats = np.take_along_axis(quality, taken[..., None], axis=-1).squeeze(axis=-1)
    return best


def candidates_spread() -> float:
    """Returns the standard deviation of the candidates' quality with which two independent searches of six trials differ by SEARCH."""
    random = np.random.default_rng(0)
    taken = winners(random, (SPREAD_DRAWS,), BEFORE, World(0.0, 1, 0.0, 1.0), 2)
    return SEARCH / float((taken[0] - taken[1]).std())


def differences(random: np.random.Generator, design: Design, world: World, studies: int) -> Floats:
    """Returns generated arm - real arm per study and repetition on endless test images, `[studies, k]`."""
    k = design.repetitions
    shape = (studies, 1) if design.search == "one per arm" else (studies, k)
    taken = winners(random, shape, design, world, 2)
    seeds = random.normal(0, SEED, (2, studies, k))
    pools = np.repeat(random.normal(0, POOL, (studies, design.pools)), math.ceil(k / design.pools), axis=1)[:, :k]
    generators = random.normal(0, GENERATOR, (studies, k if design.generators == "each" else 1))
    found: Floats = world.effect + (taken[1] - taken[0]) + (seeds[1] - seeds[0]) + pools + generators
    return found


def judge(random: np.random.Generator, design: Design, world: World, studies: int) -> tuple[float, float]:
    """Returns the shares of studies that find the generated arm better, and worse."""
    k, n = design.repetitions, CLASSES * world.each
    unit, rest = UNIT, REST  # with equal classes a unit of all counts like one of its class
    true = differences(random, design, world, studies)
    seen = (
        true + random.normal(0, unit / math.sqrt(n), (studies, 1)) + random.normal(0, rest / math.sqrt(n), true.shape)
    )
    of_units = (rest**2 + k * unit**2) * random.chisquare(n - 1, studies) / (n - 1)
    of_rest = rest**2 * random.chisquare((k - 1) * (n - 1), studies) / ((k - 1) * (n - 1))
    found = np.zeros(studies)
    for study, values in enumerate(seen):
        table = TwoWay(
            float(values.mean()), k, n, float(n * values.var(ddof=1)), float(of_units[study]), float(of_rest[study])
        )
        clear = design.test == "repetitions" or table.p <= ALPHA
        if clear and sign_flip_p(values.tolist()) <= ALPHA:
            found[study] = np.sign(table.mean)
    return float((found > 0).mean()), float((found < 0).mean())


@click.command()
@click.option("--studies", default=3000, show_default=True, help="The number of simulated studies per cell.")
def main(studies: int) -> None:
    """Prints the share of false calls and the power of each design as a Markdown table."""
    quality = candidates_spread()
    click.echo(f"{studies} studies per cell; false calls and power in per cent\n")
    columns = [(each, interaction) for each in (1000, 100) for interaction in (0.0, INTERACTION)]
    heads = [f"{each} images{', interaction' if interaction else ''}" for each, interaction in columns]
    click.echo(f"| design | effect, points | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 2)}")
    for effect in (0.0, 1.0, 2.0):
        for design in DESIGNS:
            cells = []
            for each, interaction in columns:
                world = World(effect, each, interaction, quality)
                better, worse = judge(np.random.default_rng(1), design, world, studies)
                cells.append(f"{100 * (better if effect else better + worse):.1f}")
            click.echo(f"| {design.name} | {effect:g} | {' | '.join(cells)} |")
    world = World(0.0, 1000, INTERACTION, quality)
    spread = differences(np.random.default_rng(2), AFTER, world, studies).std()
    click.echo(f"\nA repetition's difference has a standard deviation of {spread:.2f} points (with interaction).")


if __name__ == "__main__":
    main()
