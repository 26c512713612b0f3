"""The parameters that an arm is given by a search: its own, or another experiment's that it takes over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.config.apply_parameters import inherited
from shared.config.stages import TuneConfig
from shared.context import Context


def best_parameters(summary: Mapping[str, Any], repetition: int | None = None) -> dict[str, Any]:
    """Returns the best parameters by path, given the summary of a committed search.

    They are those of the best trial of a repetition, or of the best trial of all if `repetition` is None.
    """
    best: dict[str, Any] = summary["parameters"] if repetition is None else summary["repetitions"][repetition]
    return best


def taken_over(config: TuneConfig, context: Context) -> dict[str, Any]:
    """Returns the parameters that a search takes over from another experiment's: all but those that the experiment sets itself."""
    if "parameters" not in context.task.inputs:
        return {}
    return inherited(best_parameters(context.input("parameters").summary), config.pinned)
