"""Chooses the parameters that an arm gets from a search: from its own, or from another experiment's search that it takes over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.config.apply_parameters import inherited
from shared.config.stages import TuneConfig
from shared.context import Context


def best_parameters(summary: Mapping[str, Any], repetition: int | None = None) -> dict[str, Any]:
    """Returns the best parameters by path, given the summary of a committed search.

    They are those of a repetition's best trial, or of the best trial of all if `repetition` is None.
    """
    best: dict[str, Any] = summary["parameters"] if repetition is None else summary["repetitions"][repetition]
    return best


def taken_over(config: TuneConfig, context: Context) -> dict[str, Any]:
    """Returns the parameters that a search takes over from another experiment's search: all except those that the experiment sets itself."""
    if "parameters" not in context.task.inputs:
        return {}
    return inherited(best_parameters(context.input("parameters").summary), config.pinned)
