"""Defines the study: the one tree that a study file, the chart's `study:` value and `--set` describe, and the only place of defaults."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin

from pydantic import Field, StringConstraints, create_model, model_validator

from shared.config.base import Section
from shared.config.dataset import Dataset, Rare
from shared.config.generation import Accept, AnyFinetune, Generate, Score
from shared.config.prices import Prices
from shared.config.search import Final, Resources, Search, Verdict
from shared.config.training import Augmentation, Classifier, Images, Synthetic, Training

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""Restricts a name to at most 40 lower-case letters, digits and inner hyphens, since it becomes part of S3 keys and of Kubernetes names."""


class Overridable(Section):
    """Holds the sections that the study sets for all experiments, and that each experiment may override.

    A section that is declared here can be overridden and searched. One that is declared in `Study` is the same for all experiments.
    """

    rare: Rare = Rare()
    """Says which classes are rare. The study is about these, and images are generated for them only."""
    finetune: AnyFinetune
    """Describes the generator of images, and how it is trained."""
    generate: Generate = Generate()
    """Says how many images are generated for each rare class, and how they are sampled."""
    score: Score = Score()
    """Says how the generated images are judged."""
    accept: Accept = Accept()
    """Says which generated images are used in training, by their scores."""
    classifier: Classifier = Classifier()
    """Describes the network of the classifier, and which part of it is trained."""
    augmentation: Augmentation = "soft"
    """Names the augmentation of the training images, by its name in the paper's Table 2 (the table's `synthetic` is `hard` with `images:
    real+synthetic`). `none` augments nothing."""
    images: Images = "real"
    """Says on which images an experiment trains: the real ones alone; with the accepted generated images in addition (`real+synthetic`); or,
    as a placebo, with copies of real images in place of the generated ones, and all else equal (`real+copies`)."""
    training: Training = Training()
    """Says how the classifier is trained."""
    synthetic: Synthetic = Synthetic()
    """Says how the training uses generated images, or the placebo's copies."""
    search: Search = Search()
    """Describes the search for the best hyperparameters."""
    final: Final = Final()
    """Describes the final trainings, which are tested on the test split."""


class _ExperimentBase(Section):
    """Describes a row of the result table: the study with some values replaced. A mapping is merged into the study's, key by key."""

    name: Name
    """Names the experiment, uniquely in the study."""
    title: str | None = None
    """Gives a short title for the report."""
    parameters_from: str | None = None
    """Names an experiment above whose best parameters this one starts from: those that its own search found, or that it took over itself. This
    experiment's own overrides and search take precedence."""
    paper_row: Annotated[int, Field(ge=1, le=14)] | None = None
    """Chooses the row of the paper's Table 3 that the report shows beside this experiment."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seeds the experiment. Another seed repeats it with another initialisation and order, on the same data and generated images."""


def _override_fields() -> dict[str, Any]:
    """Returns the fields by which an experiment overrides sections: a mapping for each section, and the value itself for a plain value."""
    kinds: dict[str, Any] = {name: field.annotation for name, field in Overridable.model_fields.items()}
    return {
        name: (kind | None if get_origin(kind) is Literal else dict[str, Any] | None, None)
        for name, kind in kinds.items()
    }


if TYPE_CHECKING:
    Experiment = _ExperimentBase
else:
    Experiment = create_model(
        "Experiment",
        __base__=_ExperimentBase,
        __doc__=_ExperimentBase.__doc__,
        __module__=__name__,
        **_override_fields(),
    )


class Study(Overridable):
    """Asks one question about one data set: do generated images of the rare classes help, and with which parameters?"""

    name: Name
    """Names the study, whose results are stored under this name."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seeds every random choice in the study."""
    dataset: Dataset
    """Describes the labelled images and their source."""
    verdict: Verdict | Literal["none"] = Verdict()
    """Says how the study decides whether generated images help. `none` gives no verdict."""
    resources: Resources = Resources()
    """Sets the device, processes and memory that stages may use."""
    prices: Prices | None = None
    """Gives prices of devices, with which the report and `validate --plan` also say in money what the study costs. A report that is finished
    shows new prices after `tailfill run STUDY.yaml --rerun report`."""
    experiments: tuple[Experiment, ...] = Field(min_length=1)
    """Describes the rows of the result table."""

    @model_validator(mode="after")
    def _check_experiment_names(self) -> Study:
        names = [experiment.name for experiment in self.experiments]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"experiments: the name {twice[0]!r} is used twice; give each experiment its own")
        for position, experiment in enumerate(self.experiments):
            before = names[:position]
            if experiment.parameters_from is not None and experiment.parameters_from not in before:
                raise ValueError(
                    f"experiments[{position}].parameters_from: must name an experiment above, got "
                    f"{experiment.parameters_from!r}; there are {', '.join(before) or 'none'}"
                )
        return self

    @model_validator(mode="after")
    def _check_baseline(self) -> Study:
        if isinstance(self.verdict, Verdict):
            names = [experiment.name for experiment in self.experiments]
            if self.verdict.baseline not in names:
                raise ValueError(
                    f"verdict.baseline: must name an experiment, got {self.verdict.baseline!r}; there are {', '.join(names)}"
                )
        return self


LEAST_REPETITIONS = 6
"""Sets the least number of repetitions of a verdict: with fewer, its interval is too uncertain to mean what it says."""


def least_seeds(comparisons: int, alpha: float) -> int:
    """Returns the least number of repetitions of a verdict with this many comparisons.

    That is the least n with 2/2^n <= alpha/m, which the sign-flip test needs to reach alpha after Holm's correction, and at least
    LEAST_REPETITIONS.
    """
    return max(math.ceil(math.log2(2 * max(comparisons, 1) / alpha)), LEAST_REPETITIONS)
