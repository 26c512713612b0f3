"""Defines the sections `search:`, `final:`, `verdict:` and `resources:`: how parameters are searched and judged, and with what resources."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from shared.config.base import Section

MOST_SEEDS = 10_000


class FloatRange(Section):
    """Describes a range of real numbers, both ends included."""

    kind: Literal["float"] = "float"
    """Chooses a range of real numbers; a mapping with `low` and `high` is one by default."""
    low: float
    """Sets the least value."""
    high: float
    """Sets the greatest value."""
    log: bool = False
    """Says whether it is sampled on a logarithmic scale."""

    @model_validator(mode="after")
    def _check_order(self) -> FloatRange:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log scale needs low > 0, got {self.low}")
        return self


class IntRange(Section):
    """Describes a range of whole numbers, both ends included."""

    kind: Literal["int"]
    """Chooses a range of whole numbers."""
    low: int
    """Sets the least value."""
    high: int
    """Sets the greatest value."""
    log: bool = False
    """Says whether it is sampled on a logarithmic scale."""

    @model_validator(mode="after")
    def _check_order(self) -> IntRange:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log scale needs low > 0, got {self.low}")
        return self


class Choice(Section):
    """Lists at least two values."""

    kind: Literal["choice"] = "choice"
    """Chooses a list of values; a mapping with `values` is one by default."""
    values: tuple[bool | int | float | str, ...] = Field(min_length=2)
    """Lists the values to choose from, at least two."""

    @field_validator("values")
    @classmethod
    def _check_distinct(cls, values: tuple[bool | int | float | str, ...]) -> tuple[bool | int | float | str, ...]:
        kinds = [(isinstance(value, bool), value) for value in values]  # in Python True == 1
        if twice := [value for i, (value, kind) in enumerate(zip(values, kinds, strict=True)) if kind in kinds[:i]]:
            raise ValueError(f"names {twice[0]} twice, got {list(values)}; name each value once")
        return values


def _range_kind(value: Any) -> str:
    """Returns the kind of a range; without `kind`, a mapping with `values` is a choice and any other a float."""
    if isinstance(value, FloatRange | IntRange | Choice):
        return value.kind
    return str(value.get("kind", "choice" if "values" in value else "float")) if isinstance(value, dict) else "float"


Range = Annotated[
    Annotated[FloatRange, Tag("float")] | Annotated[IntRange, Tag("int")] | Annotated[Choice, Tag("choice")],
    Discriminator(_range_kind),
]


def _paper_space() -> dict[str, Range]:
    """Returns the search space of the paper's Table 1, with logarithmic scales for learning rate and weight decay."""
    return {
        "training.lr": FloatRange(low=1e-4, high=1e-2, log=True),
        "training.weight_decay": FloatRange(low=1e-4, high=1e-2, log=True),
        "training.label_smoothing": FloatRange(low=1e-4, high=1e-2),
        "training.dropout": FloatRange(low=0.15, high=0.6),
        "training.beta1": FloatRange(low=0.87, high=0.93),
        "training.beta2": FloatRange(low=0.99, high=0.99999999),
    }


class Budget(Section):
    """Sets limits that end a search before its number of trials; null is no limit."""

    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """Limits the GPU-hours that the whole study may use, all experiments together. Hours of its stages and of its searches count,
    whatever the settings were with which they ran, and lost hours count too. Once they are spent, no trial starts, running
    trials end, and the final trainings still run."""
    wall_hours: Annotated[float, Field(gt=0)] | None = None
    """Limits the hours since this search began."""


ObjectiveName = Literal["val_loss", "val_macro_f1", "val_rare_macro_f1", "val_accuracy"]


def _objective_count(value: Any) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


Objective = Annotated[
    Annotated[ObjectiveName, Tag("one")] | Annotated[tuple[ObjectiveName, ...], Tag("several")],
    Discriminator(_objective_count),
]


class Search(Section):
    """Describes the hyperparameter search of an experiment."""

    strategy: Literal["joint", "sequential", "random", "grid"] = "joint"
    """Says in which order the parameters are searched, and how. `joint` searches all parameters together with the sampler. `sequential`
    searches one parameter after the other in the order of `space`, with `trials` trials each, and keeps each one's best value. `random`
    samples the space at random, and `grid` tries its points."""
    trials: Annotated[int, Field(ge=0)] = 40
    """Sets the exact number of finished trials; 0 searches nothing and keeps the study's values. With a verdict it is a multiple of
    `final.seeds`, at least twice that number, since each repetition has a search of its own with an equal share of the trials."""
    epochs: Annotated[int, Field(ge=1)] = 25
    """Sets the number of epochs for which a trial is trained."""
    objective: Objective = "val_macro_f1"
    """Says what the search optimizes: the mean of this metric over the last five epochs. `val_loss`, the paper's, is minimized,
    and the others are maximized.

    With a list of objectives, e.g. `[val_macro_f1, val_loss]`, the search looks for the Pareto front: the trials that no other trial beats
    in one objective without losing in another. The final trainings use the parameters of the front's trial that is best in the first
    objective; the whole front is in `best.json` and in the report. Several objectives need `pruner: none`, and exclude
    `strategy: sequential` and `sampler: cmaes`.
    """
    sampler: Literal["auto", "tpe", "cmaes", "qmc", "gp"] = "auto"
    """Names Optuna's sampler, which chooses the values of each trial. `auto` is `qmc` with a verdict and `tpe` without one. With a verdict it
    must be `qmc`: in each repetition all arms try the same points of a scrambled Sobol sequence."""
    pruner: Literal["none", "median", "hyperband", "halving"] = "median"
    """Names Optuna's pruner, which ends trials early if they do badly."""
    startup_trials: Annotated[int, Field(ge=1)] = 10
    """Sets the number of random trials before the sampler learns and before any trial is pruned; the default is that of Optuna's TPE."""
    prune_after: Annotated[int, Field(ge=0)] = 10
    """Sets the epoch, counted from 0, before which no trial is pruned."""
    first_defaults: bool = True
    """Says whether trial 0, or with a verdict the first trial of each repetition, uses the study's own values, if they lie in the space; with
    a grid, if they are one of its points."""
    space: dict[str, Range] = Field(default_factory=_paper_space)
    """Lists the parameters to search by their path in the study, e.g. `training.lr: {low: 0.0001, high: 0.01, log: true}`; the default is the
    paper's Table 1. Allowed are paths of `training`, `synthetic`, `accept`, `classifier` and `augmentation`, and from `generate` the paths
    `guidance`, `steps`, `image_to_image.share`, `image_to_image.strength`, `fill_to` and `cap`, each with a few `values`. Images for equal
    settings are generated once, by the first trial that needs them, and the final trainings use the images of the best trial."""
    warm_start_from: str | None = None
    """Names an earlier search whose best trials are tried first: an experiment above that has its own search, or `study/experiment` for the
    newest finished search of another study's experiment in the same store (on one machine: the same TAILFILL_STORE or --workdir).

    At most five of its completed trials are taken, the best by its own objective (with several objectives, the first of its front). They
    follow the study's own values and count as `trials`. A trial takes over the values of the parameters that are in this `space` and lie
    within it, and the sampler chooses the others. `strategy: grid` takes points of its grid only, and tries them first. A study with a
    verdict has no warm start, since its repetitions would then share what another search found.
    """
    workers: Annotated[int, Field(ge=1)] = 2
    """Sets the number of workers at the start; `--workers` or `kubectl scale` changes it at any time."""
    budget: Budget = Budget()
    """Sets limits that end the search before its number of trials."""
    max_failures: Annotated[int, Field(ge=0)] = 10
    """Sets the number of failed trials after which the search ends early. Each failed trial is replaced by a new one."""
    max_retries: Annotated[int, Field(ge=0)] = 3
    """Limits how often a trial whose worker was lost is queued again without progress, before it counts as failed."""
    lease_seconds: Annotated[float, Field(gt=0)] = 90.0
    """Sets the seconds without a heartbeat after which a worker loses its trial. They are more than the minute for which a
    database may be unavailable."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 1
    """Sets the number of epochs between two checkpoints of a trial in the store. A checkpoint is skipped if it is due while another one is
    being uploaded, or shortly before the end."""

    @field_validator("objective")
    @classmethod
    def _check_distinct(cls, objective: Objective) -> Objective:
        if not isinstance(objective, str):
            if len(objective) < 2:
                raise ValueError(
                    f"lists {len(objective)} objectives, got {list(objective)}; name one without brackets, or at least two"
                )
            if twice := [name for i, name in enumerate(objective) if name in objective[:i]]:
                raise ValueError(f"names {twice[0]} twice, got {list(objective)}; name each objective once")
        return objective

    @property
    def objectives(self) -> tuple[ObjectiveName, ...]:
        """Lists all objectives, the deciding one first."""
        return (self.objective,) if isinstance(self.objective, str) else self.objective


class Final(Section):
    """Describes the final trainings, which are judged on the test split."""

    epochs: Annotated[int, Field(ge=1)] = 60
    """Sets the number of epochs of each training."""
    seeds: Annotated[int, Field(ge=1, le=MOST_SEEDS)] = 10
    """Sets the number of repetitions. With a verdict each is the whole procedure anew: a search of its own, a pool of generated images of its
    own, and a training with a seed of its own. Repetitions are paired over experiments. Without a verdict, all repetitions use the best
    parameters of one search and one pool of images."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 5
    """Sets the number of epochs between two checkpoints in the store. A checkpoint is skipped if it is due while another one is being
    uploaded, or shortly before the end."""


class Verdict(Section):
    """Says how the study decides between helps, hurts and no effect found."""

    metric: Literal["rare_macro_f1", "macro_f1", "accuracy", "balanced_accuracy"] = "rare_macro_f1"
    """Names the metric on the test split that is compared."""
    baseline: str = "real"
    """Names the experiment that the others are compared with."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Sets the family-wise error rate over all arms with generated images, by Holm's correction."""
    generators: Literal["each", "one"] = "each"
    """Says whether each repetition trains a generator of its own, or all draw their images from one. With `one`, which costs less, the verdict
    holds for this one generator, and the report says so."""
    compares: Literal["images", "recipes"] = "images"
    """Says in what arms with generated images or copies may differ from the baseline. `images` allows `images`, `finetune`, `generate`,
    `score`, `accept`, `synthetic` and a search over these, so that the verdict is about the images. `recipes` allows any difference, and
    the report then speaks of recipes."""
    provisional: bool = False
    """Says whether fewer seeds than a verdict needs are accepted; the report then says so in place of a verdict."""


class Resources(Section):
    """Describes the resources that the study's stages may use. They are part of no key: a study on another machine is the same study."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Names the device on which stages compute; `auto` uses a GPU if there is one."""
    processes: Annotated[int, Field(ge=1)] | None = None
    """Sets the number of stage processes that run at the same time on one machine. If unset, it is one per GPU, or one per core if
    there is no GPU."""
    cache_gib: Annotated[float, Field(gt=0)] = 4.0
    """Limits the memory in GiB that one training may fill with decoded images or features, and the local disk that the stored features of all
    trainings on a node may fill. A training fills at most half of what is free in its share of the memory of the machine or container. What
    does not fit is computed each time that it is needed."""
    compile: Annotated[bool, Field(exclude_if=lambda value: not value)] = False
    """Says whether the network of a text-to-image generator is compiled before it trains or draws, which takes a minute or more in each process.
    The log says after how many steps or images that pays. Images differ from those of a network that is not compiled by rounding. It needs
    a C++ compiler. A generator with adapters per class draws without it, since these change between images."""
