"""Stores the values that a trial reports after each epoch with the trial, so that they survive its worker.

With one objective they are Optuna's intermediate values, which its pruners read. Optuna has no such values for several objectives; then
they are user attributes of the trial, one per epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial, Trial

EPOCH = "epoch "  # the prefix of such an attribute's name; the epoch follows

Values = tuple[float, ...]
"""Holds one value per objective."""


def as_values(value: float | Sequence[float]) -> Values:
    """Returns what an objective returned, a number or several, as a tuple."""
    return tuple(value) if isinstance(value, Sequence) else (value,)


def write_values(trial: Trial, epoch: int, values: Values) -> None:
    """Stores the values of an epoch."""
    if len(values) == 1:
        trial.report(values[0], epoch)
    else:
        trial.set_user_attr(f"{EPOCH}{epoch}", values)


def read_values(trial: FrozenTrial) -> dict[int, Values]:
    """Returns the values that are stored, by epoch, in order."""
    several = {int(k.removeprefix(EPOCH)): tuple(v) for k, v in trial.user_attrs.items() if k.startswith(EPOCH)}
    one = {epoch: (value,) for epoch, value in trial.intermediate_values.items()}
    return dict(sorted({**several, **one}.items()))
