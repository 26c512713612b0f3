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
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from benchmarks.drawn_studies import ALPHA, DESIGNS, WORLDS, StudySampler
from benchmarks.held_out import SETUPS, HeldOut
from benchmarks.null_study import NullStudy
from benchmarks.outcome_table import Kind, Outcomes, Sizes, measure


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
                click.echo(row(file.stem, StudySampler(outcomes, design, world), studies))


@main.command("run")
@click.argument("data", type=click.Choice([name for name, setup in SETUPS.items() if not setup.thinned]))
@click.argument("workdir", type=click.Path(path_type=Path))
@click.option("--studies", default=4, show_default=True, help="The studies that are run; they differ in their seed.")
@click.option("--first", default=0, show_default=True, help="The seed of the first study.")
@click.option("--arms", default=5, show_default=True, help="The arms of a study beside its baseline.")
def run_command(data: str, workdir: Path, studies: int, first: int, arms: int) -> None:
    """Run studies of arms that differ only in which held-out images they add, and print their comparisons."""
    click.echo("| study | arm | difference, points | standard error | p |\n|---|---|---|---|---|")
    found = []
    for seed in range(first, first + studies):
        for comparison in NullStudy(SETUPS[data], seed, arms).run(workdir / f"{data}-{seed}"):
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


def row(data: str, sampler: StudySampler, studies: int) -> str:
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
