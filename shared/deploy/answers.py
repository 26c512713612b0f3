"""Turns calibrated probabilities into answers: a label per group, how sure it is, and “don't know” below a confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.data.schema import LabelGroup
from shared.deploy.description import Description
from shared.metrics.abstention import decision_confidences
from shared.metrics.counts import decide

UNKNOWN = "don't know"


@dataclass(frozen=True)
class GroupAnswer:
    """Holds the answer to one label group."""

    group: LabelGroup
    labels: tuple[str, ...]
    """Lists the classes that are answered: one, or none if it is withheld, in a `one` group; any number in an `any` group."""
    withheld: tuple[str, ...]
    """Lists the classes that would be answered if the confidence sufficed (`one`), or those of which it is not said whether they apply (`any`)."""
    probabilities: dict[str, float]
    """Maps each class to its calibrated probability."""

    @property
    def probability(self) -> float:
        """Returns the probability of the most probable class."""
        return max(self.probabilities.values())


def answer(description: Description, probabilities: NDArray[np.float32], confidence: float) -> list[GroupAnswer]:
    """Returns the answer of each group for the calibrated probabilities `[C]` of an image; decisions less sure than `confidence` are withheld."""
    schema = description.schema_
    row = probabilities[None]
    decided = decide(schema, row, description.threshold_array())
    sure = decision_confidences(schema, row, decided)[0] >= confidence
    found = []
    for name, columns in schema.slices().items():
        group = schema.group(name)
        of_class = list(zip(group.classes, decided[0, columns].tolist(), sure[columns].tolist(), strict=True))
        yes = tuple(label for label, is_yes, is_sure in of_class if is_yes and is_sure)
        withheld = tuple(
            label for label, is_yes, is_sure in of_class if not is_sure and (is_yes or group.kind == "any")
        )
        values = dict(zip(group.classes, map(float, probabilities[columns]), strict=True))
        found.append(GroupAnswer(group, yes, withheld, values))
    return found
