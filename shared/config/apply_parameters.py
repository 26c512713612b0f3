"""Sets the values that a search found in an arm's configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from shared.config.explain import requirement
from shared.config.paths import is_under, parameters_of, with_parameters
from shared.config.stages import Arm
from shared.errors import ConfigError


def inherited(parameters: Mapping[str, Any], pinned: Iterable[str]) -> dict[str, Any]:
    """Returns the parameters that an experiment takes over from another one: all except those that it sets itself (`pinned`)."""
    return {path: value for path, value in parameters.items() if not is_under(path, pinned)}


def apply_parameters(arm: Arm, parameters: Mapping[str, Any]) -> Arm:
    """Returns the arm with parameters set by path; raises ConfigError if a value is not allowed.

    Parameters of sections that are None in this arm are skipped. An arm with real images generates, accepts and mixes nothing, and images
    that are an input were generated with these values already.
    """
    own = {p: v for p, v in parameters_of(Arm, parameters).items() if getattr(arm, p.split(".")[0]) is not None}
    try:
        return with_parameters(arm, own)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{path}: {requirement(error)}, got {first['input']!r} from the search; correct search.space"
        ) from error
