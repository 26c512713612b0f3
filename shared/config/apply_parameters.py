"""An arm with the values that a search found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from shared.config.explain import reason
from shared.config.paths import is_under, parameters_of, with_parameters
from shared.config.stages import Arm
from shared.errors import ConfigError


def inherited(parameters: Mapping[str, Any], pinned: Iterable[str]) -> dict[str, Any]:
    """Returns those of another experiment's parameters that this one takes over: all but those that it sets itself (`pinned`)."""
    return {path: value for path, value in parameters.items() if not is_under(path, pinned)}


def apply_parameters(arm: Arm, parameters: Mapping[str, Any]) -> Arm:
    """The arm with parameters set by path; raises ConfigError for a value that it cannot have.

    Sections that the arm has not are skipped: with real images there is nothing to generate, to let in or to mix, and where images
    are an input, they were made with the values found already.
    """
    own = {p: v for p, v in parameters_of(Arm, parameters).items() if getattr(arm, p.split(".")[0]) is not None}
    try:
        return with_parameters(arm, own)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{where}: {reason(error)}, got {first['input']!r} from the search; mend search.space"
        ) from error
