"""Asks how often a verdict is false, and how often it finds an effect, on real trainings.

python -m benchmarks.null measure DATA FILE.npz [--set PATH=VALUE] [--processes N]
python -m benchmarks.null judge FILE.npz... [--studies N]
python -m benchmarks.null run DATA WORKDIR [--studies N] [--arms N]

Arms that are equal in everything would give equal numbers, and never be called different: a vacuous null. So `measure` trains a table of
outcomes, of 24 points of a study's space, 8 seeds and 8 pools, in which each pool of an arm is a random draw of real images that the data
set does not contain: arms with different pools do not differ in effect, though their images do. `judge` draws studies from the table,
whose repetitions are independent, and judges them by the project's own functions. `run` has `tailfill run` make such comparisons, with
held-out images committed in place of generated ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.held_out import SETUPS, HeldOut
from benchmarks.null_study import NullStudy
from benchmarks.outcome_table import Kind, Outcomes, Sizes, measure
from shared.metrics.counts import count
from shared.metrics.influence import influences
from shared.metrics.table import metric_named
from shared.metrics.verdict import ArmVerdict, Measured, give_verdicts

ALPHA = 0.05
METRIC = metric_named("rare_macro_f1")


@dataclass(frozen=True)
class Design:
    """Says how many repetitions a study has, and how many trials in each."""

    name: str
    repetitions: int
    candidates: int
    one_search: bool = False
    """Whether one search per arm serves all repetitions, as it did before each repetition had its own."""


DESIGNS = (
    Design("demo", 6, 2),
    Design("init, fashion-mnist, deepfashion-lite", 10, 4),
)
"""The settings of `init`, the demo and the other studies with a verdict."""


@dataclass(frozen=True)
class World:
    """Says what the three arms of a study really are."""

    name: str
    real: Kind
    synthetic: Kind
    placebo: Kind
    false: tuple[str, ...]
    """The outcomes that are false in it."""


WORLDS = (
    World("different draws in all arms", "draws", "draws", "draws", ("images help", "recipe helps", "hurts")),
    World("different copies in all arms", "copies", "copies", "copies", ("images help", "recipe helps", "hurts")),
    World("real images, copies, other copies", "real", "copies", "copies", ("images help",)),
    World("planted: real images, held-out images, copies", "real", "draws", "copies", ()),
)
ARMS = ("real", "synthetic", "placebo")


@dataclass(frozen=True)
class Sampler:
    """Draws studies from the outcomes of a data set."""

    outcomes: Outcomes
    design: Design
    world: World

    def study(self, random: np.random.Generator, images: bool = True) -> Measured:
        """Returns a study's measurements. With `images`, its test images are drawn anew as well, with replacement, by their units.

        Per repetition, all arms get the same points and the same seed, and each gets its own pool and takes its own winner.
        """
        rows, units = (
            self._test_images(random) if images else (np.arange(len(self.outcomes.labels)), self.outcomes.units)
        )
        kinds = dict(zip(ARMS, (self.world.real, self.world.synthetic, self.world.placebo), strict=True))
        values: dict[str, dict[int, float | None]] = {arm: {} for arm in ARMS}
        influence = {}
        for repeat, cells in enumerate(self._cells(random, kinds)):
            for arm, cell in cells.items():
                decided = self.outcomes.decisions(kinds[arm], *cell)[rows]
                labels = self.outcomes.labels[rows]
                values[arm][repeat] = self._value(decided, labels)
                influence[arm, repeat] = influences(
                    METRIC, self.outcomes.schema, decided, labels, self.outcomes.rare, units
                )
        return Measured(METRIC.name, values, influence)

    def verdict(self, random: np.random.Generator) -> ArmVerdict:
        """Returns what a study says of its arm with generated images."""
        return give_verdicts(self.study(random), "real", ["synthetic"], ["placebo"], ALPHA)[0]

    def effect(self, random: np.random.Generator, repetitions: int) -> float:
        """Returns the mean difference of the generated and the real arm over so many repetitions on the test images as they are."""
        kinds: dict[str, Kind] = {"real": self.world.real, "synthetic": self.world.synthetic}
        labels, found = self.outcomes.labels, []
        many = replace(self.design, repetitions=repetitions)
        for cells in Sampler(self.outcomes, many, self.world)._cells(random, kinds):
            scores = {
                arm: self._value(self.outcomes.decisions(kinds[arm], *cell), labels) for arm, cell in cells.items()
            }
            found.append(scores["synthetic"] - scores["real"])
        return float(np.mean(found))

    def _value(self, decided: NDArray[np.bool_], labels: NDArray[np.int8]) -> float:
        assert METRIC.from_counts is not None
        return float(METRIC.from_counts(self.outcomes.schema, count(decided, labels), self.outcomes.rare))

    def _cells(self, random: np.random.Generator, kinds: Mapping[str, Kind]) -> list[dict[str, tuple[int, int, int]]]:
        """Returns the point, seed and pool of each arm's final training, per repetition.

        Arms of one kind get different pools, as in a study: with the same pool, point and seed two arms would be one training.
        """
        points, seeds, _ = next(iter(self.outcomes.tables.values())).values.shape
        searched: dict[str, int] = {}
        repetitions = []
        for _ in range(self.design.repetitions):
            candidates = random.choice(points, self.design.candidates, replace=False)
            seed = int(random.integers(seeds))
            cells = {}
            pools = {
                kind: iter(random.permutation(self.outcomes.tables[kind].values.shape[2]).tolist())
                for kind in dict.fromkeys(kinds.values())
            }
            for arm, kind in kinds.items():
                table = self.outcomes.tables[kind].values
                pool = 0 if kind == "real" else next(pools[kind])
                if self.design.one_search:  # a search of its own per arm, and its winner in all repetitions
                    own = random.choice(points, self.design.candidates, replace=False)
                    best = searched.setdefault(arm, int(own[table[own, seed, pool].argmax()]))
                else:
                    best = int(candidates[table[candidates, seed, pool].argmax()])
                cells[arm] = (best, seed, pool)
            repetitions.append(cells)
        return repetitions

    def _test_images(self, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the rows of the test images of units drawn with replacement, and the number of the drawn unit of each."""
        units = self.outcomes.units
        drawn = random.integers(units.max() + 1, size=units.max() + 1)
        order = np.argsort(units, kind="stable")
        first = np.searchsorted(units[order], np.arange(units.max() + 2))
        rows = [order[first[unit] : first[unit + 1]] for unit in drawn]
        return np.concatenate(rows), np.repeat(np.arange(len(drawn)), [len(r) for r in rows])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure how often a verdict is false, and how often it finds a planted effect."""


@main.command("measure")
@click.argument("data", type=click.Choice(list(SETUPS)))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Replace a value of the study.")
@click.option(
    "--sizes",
    type=(int, int, int),
    default=(24, 8, 8),
    show_default=True,
    help="The numbers of points, seeds and pools.",
)
@click.option("--copies", default=8, show_default=True, help="The number of pools of copies.")
@click.option("--processes", default=1, show_default=True, help="The number of processes that train.")
@click.option("--cache", type=click.Path(path_type=Path), help="The folder for the frozen backbone's outputs.")
def measure_command(
    data: str,
    file: Path,
    sets: tuple[str, ...],
    sizes: tuple[int, int, int],
    copies: int,
    processes: int,
    cache: Path | None,
) -> None:
    """Train the table of outcomes of DATA and write it to FILE.npz; it takes one to two hours of a core."""
    points, seeds, pools = sizes
    tables: dict[Kind, Sizes] = {
        "real": Sizes(points, seeds, 1),
        "draws": Sizes(points, seeds, pools),
        "copies": Sizes(points, seeds, copies),
    }
    held_out = HeldOut.of(SETUPS[data], sets)
    measure(held_out, tables, cache or file.with_suffix(".cache"), processes).save(file)


@main.command("judge")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--studies", default=1000, show_default=True, help="The studies drawn per row.")
def judge_command(files: Sequence[Path], studies: int) -> None:
    """Draw studies from the tables in FILES, and print what is said of their arms as a Markdown table."""
    click.echo(f"{studies} studies per row; α = {ALPHA}, so false calls stay below {100 * limit(studies):.1f} %\n")
    click.echo(
        "| data | settings | arms: real, generated, placebo | effect, points | false calls | images help | recipe helps | hurts |"
    )
    click.echo("|---|---|---|---|---|---|---|---|")
    for file in files:
        outcomes = Outcomes.load(file)
        for world in WORLDS:
            for design in DESIGNS:
                click.echo(row(file.stem, Sampler(outcomes, design, world), studies))


@main.command("run")
@click.argument("data", type=click.Choice([name for name, setup in SETUPS.items() if not setup.thinned]))
@click.argument("workdir", type=click.Path(path_type=Path))
@click.option("--studies", default=4, show_default=True, help="The studies that are run; they differ in their seed.")
@click.option("--arms", default=5, show_default=True, help="The arms of a study beside its baseline.")
def run_command(data: str, workdir: Path, studies: int, arms: int) -> None:
    """Run studies of arms that differ only in which held-out images they add, and print their comparisons."""
    click.echo("| study | arm | difference, points | standard error | p |\n|---|---|---|---|---|")
    found = []
    for seed in range(studies):
        for comparison in NullStudy(data, seed, arms).run(workdir / f"{data}-{seed}"):
            found.append(comparison)
            difference, error = 100 * comparison["difference"], 100 * comparison["standard_error"]
            click.echo(f"| {seed} | {comparison['arm']} | {difference:+.1f} | {error:.1f} | {comparison['p']:.2f} |")
    differences = [100 * comparison["difference"] for comparison in found]
    errors = [100 * comparison["standard_error"] for comparison in found]
    false = sum(comparison["p"] <= ALPHA for comparison in found)
    click.echo(
        f"\n{false} of {len(found)} comparisons have p <= {ALPHA}; the differences have a root mean square of "
        f"{np.sqrt(np.mean(np.square(differences))):.2f} points, their standard errors of {np.sqrt(np.mean(np.square(errors))):.2f}"
    )


def limit(studies: int) -> float:
    """Returns alpha plus two standard errors of a share of so many studies."""
    return ALPHA + 2 * math.sqrt(ALPHA * (1 - ALPHA) / studies)


def row(data: str, sampler: Sampler, studies: int) -> str:
    """Returns one row of the table: the shares of the studies' outcomes in per cent."""
    random = np.random.default_rng(0)
    outcomes = [sampler.verdict(random).outcome for _ in range(studies)]
    world = sampler.world
    false = f"{100 * np.mean([o in world.false for o in outcomes]):.1f} %" if world.false else "–"
    design = f"{sampler.design.name}: {sampler.design.repetitions} × {sampler.design.candidates}"
    shares = [
        f"{100 * np.mean([o == said for o in outcomes]):.1f}" for said in ("images help", "recipe helps", "hurts")
    ]
    effect = f"{100 * sampler.effect(random, 400):+.1f}"
    return f"| {data} | {design} | {world.name} | {effect} | {false} | {' | '.join(shares)} |"


if __name__ == "__main__":
    main()
