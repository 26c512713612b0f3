"""Measures the cost of a trial in tailfill and in a plain timm loop, which run alternately on the same data, model and frozen parts.

python -m benchmarks.trial STUDY.yaml [--set PATH=VALUE] [--images N] [--val-images N] [--seeds N] [--workers N] [--work DIR] [--json FILE]
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import click
import torch

from benchmarks.comparison import run_comparison
from benchmarks.options import data_options
from benchmarks.outcome import Outcome
from benchmarks.plain_loop import PlainLoop, check_arm
from benchmarks.summary import Summary, table
from benchmarks.tailfill_trial import Bench
from shared import log
from shared.classifier.data import kept_views
from shared.config.load import load_study
from shared.device import device_name, pick_device


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@data_options
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Trainings of each kind.")
@click.option("--workers", type=click.IntRange(min=0), help="The plain loop's loader processes [one per core].")
@click.option("--work", type=click.Path(path_type=Path), help="Keeps the prepared data for the next run [a temporary folder].")  # fmt: skip
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also writes every figure here.")
def main(
    study: Path,
    sets: tuple[str, ...],
    images: int | None,
    val_images: int | None,
    seeds: int,
    workers: int | None,
    work: Path | None,
    json_file: Path | None,
) -> None:
    """Train the first experiment of STUDY with its own parameters, alternately as a trial and as a plain loop, and compare."""

    def compared(temporary: Path) -> Summary:
        folder = work or temporary
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench.make(load_study(study, sets), folder, images, val_images)
        return compare(bench, seeds, (os.cpu_count() or 1) if workers is None else workers)

    run_comparison(compared, table, json_file)


def compare(bench: Bench, seeds: int, workers: int) -> Summary:
    """Trains both ways alternately, seed by seed, so that other load on the machine affects both equally."""
    arm, device = bench.config.arm, pick_device(bench.study.resources.device)
    check_arm(arm)
    progress, load = log.Log("benchmark"), [os.getloadavg()[0]]
    trials: list[Outcome] = []
    plain: list[Outcome] = []
    if device.type == "cuda":
        _warm_up(bench, device, workers)
    with tempfile.TemporaryDirectory(dir=bench.scratch) as features:
        for seed in range(seeds):
            trials.append(bench.run(seed, Path(features)))
            progress.info("trial", **asdict(trials[-1]))
            loop = PlainLoop(bench, device, workers, seed)
            plain.append(loop.run(bench.config.search.epochs))
            progress.info("plain loop", **asdict(plain[-1]))
            load.append(os.getloadavg()[0])
    return Summary(
        model=arm.classifier.model,
        trainable=arm.classifier.trainable,
        augmentation=arm.augmentation,
        views=kept_views(arm),
        images=len(bench.train),
        val_images=len(bench.val),
        epochs=bench.config.search.epochs,
        search_trials=bench.config.search.trials,
        device=device_name(device),
        cores=os.cpu_count() or 1,
        instructions=torch.backends.cpu.get_cpu_capability(),
        workers=workers,
        load=load,
        trials=trials,
        plain=plain,
    )


def _warm_up(bench: Bench, device: torch.device, workers: int) -> None:
    """Runs one epoch of each without timing it: CUDA takes seconds to load kernels at their first use, for whichever side is first."""
    search = bench.config.search.model_copy(update={"epochs": 1})
    short = replace(bench, config=bench.config.model_copy(update={"search": search}))
    with tempfile.TemporaryDirectory(dir=bench.scratch) as features:
        short.run(0, Path(features))
    PlainLoop(short, device, workers, 0).run(1)


if __name__ == "__main__":
    main()
