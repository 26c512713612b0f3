"""The study: the one tree that a study file, the chart's `study:` value and `--set` describe, and the only home of defaults."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin

from pydantic import Field, StringConstraints, create_model, model_validator

from shared.config.base import Section
from shared.config.dataset import Dataset, Rare
from shared.config.generation import Accept, AnyFinetune, Generate, Score
from shared.config.search import Final, Resources, Search, Verdict
from shared.config.training import Augmentation, Classifier, Images, Synthetic, Training

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""Lower-case letters, digits and inner hyphens, at most 40: it becomes part of S3 keys and Kubernetes names."""


class Overridable(Section):
    """The sections that the study sets for all experiments, and that each experiment may set for itself.

    A section that is declared here can be overridden, resolved and searched; one that is declared in `Study` is the same for all.
    """

    rare: Rare = Rare()
    finetune: AnyFinetune
    generate: Generate = Generate()
    score: Score = Score()
    accept: Accept = Accept()
    classifier: Classifier = Classifier()
    augmentation: Augmentation = "soft"
    images: Images = "real"
    training: Training = Training()
    synthetic: Synthetic = Synthetic()
    search: Search = Search()
    final: Final = Final()


class _Row(Section):
    """A row of the result table: the study with some values replaced. A mapping is merged into the study's, key by key."""

    name: Name
    title: str | None = None
    """A few words for the report."""
    parameters_from: str | None = None
    """Start from the parameters that another experiment's search ended with (its own, or the one it took them from), under this
    one's own overrides and search."""
    paper_row: Annotated[int, Field(ge=1, le=14)] | None = None
    """The row of the paper's Table 3 that the report sets beside this one."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Another one makes a rerun of the same experiment: other initialisation and order, the same data and generated images."""


def _overrides() -> dict[str, Any]:
    """The fields by which an experiment sets sections for itself: a mapping for each that is one, else the value."""
    kinds: dict[str, Any] = {name: field.annotation for name, field in Overridable.model_fields.items()}
    return {
        name: (kind | None if get_origin(kind) is Literal else dict[str, Any] | None, None)
        for name, kind in kinds.items()
    }


if TYPE_CHECKING:
    Experiment = _Row
else:
    Experiment = create_model("Experiment", __base__=_Row, __doc__=_Row.__doc__, __module__=__name__, **_overrides())


class Study(Overridable):
    """One question about one data set: do generated images of the rare classes help, and with which parameters?"""

    name: Name
    seed: Annotated[int, Field(ge=0)] = 0
    """Every random choice of the study follows from it."""
    dataset: Dataset
    verdict: Verdict | Literal["none"] = Verdict()
    resources: Resources = Resources()
    experiments: tuple[Experiment, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names(self) -> Study:
        names = [experiment.name for experiment in self.experiments]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"experiments: the name {twice[0]!r} stands twice; give each experiment its own")
        for position, experiment in enumerate(self.experiments):
            before = names[:position]
            if experiment.parameters_from is not None and experiment.parameters_from not in before:
                raise ValueError(
                    f"experiments[{position}].parameters_from: must name an experiment above, got "
                    f"{experiment.parameters_from!r}; there are {before or 'none'}"
                )
        return self

    @model_validator(mode="after")
    def _verdict(self) -> Study:
        if isinstance(self.verdict, Verdict):
            names = [experiment.name for experiment in self.experiments]
            if self.verdict.baseline not in names:
                raise ValueError(
                    f"verdict.baseline: must name an experiment, got {self.verdict.baseline!r}; there are {names}"
                )
        return self


def least_seeds(comparisons: int, alpha: float) -> int:
    """Fewest paired seeds with which a two-sided sign-flip test can reach alpha after Holm: 2/2^n <= alpha/m."""
    return math.ceil(math.log2(2 * max(comparisons, 1) / alpha))
