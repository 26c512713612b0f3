"""Defines the arguments that all benchmarks have: a study, and how many of its images to use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_OPTIONS = (
    click.argument("study", type=click.Path(path_type=Path), metavar="STUDY.yaml"),
    click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Replace a value of the study."),
    click.option("--images", type=click.IntRange(min=2), help="Training images [all]."),
    click.option("--val-images", type=click.IntRange(min=2), help="Validation images [all]."),
)


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a command the arguments `study`, `sets`, `images` and `val_images`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
