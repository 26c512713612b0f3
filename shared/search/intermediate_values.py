"""The values that a trial reports after each epoch, kept with the trial: they survive its worker.

With one objective they are Optuna's intermediate values, which its pruners read. Optuna has none for several objectives; then they are
user attributes of the trial, one per epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial, Trial

EPOCH = "epoch "  # beginning of such an attribute's name; the epoch follows

Values = tuple[float, ...]
"""One value per objective."""


def as_values(value: float | Sequence[float]) -> Values:
    """Returns what an objective gave, a number or several, as a tuple."""
    return tuple(value) if isinstance(value, Sequence) else (value,)


def write_values(trial: Trial, epoch: int, values: Values) -> None:
    """Keeps the values of an epoch."""
    if len(values) == 1:
        trial.report(values[0], epoch)
    else:
        trial.set_user_attr(f"{EPOCH}{epoch}", values)


def read_values(trial: FrozenTrial) -> dict[int, Values]:
    """Returns the values that are kept, by epoch, in order."""
    several = {int(k.removeprefix(EPOCH)): tuple(v) for k, v in trial.user_attrs.items() if k.startswith(EPOCH)}
    one = {epoch: (value,) for epoch, value in trial.intermediate_values.items()}
    return dict(sorted({**several, **one}.items()))
