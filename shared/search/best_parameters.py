"""The parameters that an arm is given by its inputs: the best of its own search, or those that it takes over from another's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from shared.config.apply_parameters import inherited
from shared.context import Context

SEARCHES = ("tune", "parameters")
"""Roles of the inputs that bring parameters: an experiment's own search, or another experiment's."""


def best_parameters(context: Context, pinned: Sequence[str]) -> dict[str, Any]:
    """Returns the best parameters by path, without those that the experiment sets itself (`pinned`) if they are another's."""
    for role in SEARCHES:
        if role in context.task.inputs:
            best = json.loads(context.fetch(context.input(role), "best.json").read_bytes())["parameters"]
            return inherited(best, pinned if role == "parameters" else ())
    return {}
