"""The values that a trial reports, epoch by epoch, kept with the trial: they survive its worker.

Of one objective they are Optuna's intermediate values, which its pruners read. Optuna has none for several objectives; there they are
user attributes of the trial, one an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial, Trial

EPOCH = "epoch "  # beginning of such an attribute's name; the epoch follows

Values = tuple[float, ...]
"""One an objective."""


def numbers(value: float | Sequence[float]) -> Values:
    """A value as an objective may give it: a number, or several."""
    return tuple(value) if isinstance(value, Sequence) else (value,)


def record(trial: Trial, epoch: int, values: Values) -> None:
    """Keeps an epoch's values."""
    if len(values) == 1:
        trial.report(values[0], epoch)
    else:
        trial.set_user_attr(f"{EPOCH}{epoch}", values)


def reported(trial: FrozenTrial) -> dict[int, Values]:
    """What is kept, by epoch, in order."""
    several = {int(k.removeprefix(EPOCH)): tuple(v) for k, v in trial.user_attrs.items() if k.startswith(EPOCH)}
    one = {epoch: (value,) for epoch, value in trial.intermediate_values.items()}
    return dict(sorted({**several, **one}.items()))
