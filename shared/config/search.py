"""`search:`, `final:`, `verdict:` and `resources:`: how parameters are sought, judged, and on what."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from shared.config.base import Section


class FloatRange(Section):
    """A real parameter."""

    kind: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False
    """Draw it on a logarithmic scale."""

    @model_validator(mode="after")
    def _ordered(self) -> FloatRange:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log scale needs low > 0, got {self.low}")
        return self


class IntRange(Section):
    """A whole-number parameter."""

    kind: Literal["int"]
    low: int
    high: int
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> IntRange:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a log scale needs low > 0, got {self.low}")
        return self


class Choice(Section):
    """One of a few values."""

    kind: Literal["choice"] = "choice"
    values: tuple[bool | int | float | str, ...] = Field(min_length=2)

    @field_validator("values")
    @classmethod
    def _distinct(cls, values: tuple[bool | int | float | str, ...]) -> tuple[bool | int | float | str, ...]:
        kinds = [(isinstance(value, bool), value) for value in values]  # else true would be 1
        if twice := [value for i, (value, kind) in enumerate(zip(values, kinds, strict=True)) if kind in kinds[:i]]:
            raise ValueError(f"names {twice[0]} twice, got {list(values)}; name each value once")
        return values


def _kind(value: Any) -> str:
    """`kind` may be left out: a mapping with `values` is a choice, any other a float."""
    if isinstance(value, FloatRange | IntRange | Choice):
        return value.kind
    return str(value.get("kind", "choice" if "values" in value else "float")) if isinstance(value, dict) else "float"


Range = Annotated[
    Annotated[FloatRange, Tag("float")] | Annotated[IntRange, Tag("int")] | Annotated[Choice, Tag("choice")],
    Discriminator(_kind),
]


def _paper_space() -> dict[str, Range]:
    """The paper's Table 1, with logarithmic scales for learning rate and weight decay."""
    return {
        "training.lr": FloatRange(low=1e-4, high=1e-2, log=True),
        "training.weight_decay": FloatRange(low=1e-4, high=1e-2, log=True),
        "training.label_smoothing": FloatRange(low=1e-4, high=1e-2),
        "training.dropout": FloatRange(low=0.15, high=0.6),
        "training.beta1": FloatRange(low=0.87, high=0.93),
        "training.beta2": FloatRange(low=0.99, high=0.99999999),
    }


class Budget(Section):
    """What ends a search beside its number of trials; null is no bound."""

    gpu_hours: Annotated[float, Field(gt=0)] | None = None
    """GPU-hours of the whole study, all experiments together: what its stages and its searches used, under whatever settings, lost
    hours counted. Once they are spent no trial is begun; running ones end, and the final trainings still run."""
    wall_hours: Annotated[float, Field(gt=0)] | None = None
    """Hours since this search began."""


ObjectiveName = Literal["val_loss", "val_macro_f1", "val_rare_macro_f1", "val_accuracy"]


def _one_or_several(value: Any) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


Objective = Annotated[
    Annotated[ObjectiveName, Tag("one")] | Annotated[tuple[ObjectiveName, ...], Tag("several")],
    Discriminator(_one_or_several),
]


class Search(Section):
    """One experiment's hyperparameter search."""

    strategy: Literal["joint", "sequential", "random", "grid"] = "joint"
    """`sequential`: one parameter after the other in the order of `space`, each `trials` trials, its best value kept."""
    trials: Annotated[int, Field(ge=0)] = 15
    """Finished trials, exactly; 0 searches nothing and keeps the study's values."""
    epochs: Annotated[int, Field(ge=1)] = 25
    objective: Objective = "val_macro_f1"
    """Mean over the last five epochs (the paper's: of the validation loss, minimised; the others are maximised).

    Several, e.g. `[val_macro_f1, val_loss]`: the search looks for the Pareto front, the trials that no other beats in one objective
    without losing in another. Of the front, the parameters of the trial best in the first objective are trained with; the whole front is
    in `best.json` and in the report. Nothing is pruned then (`pruner: none`), and `strategy: sequential` and `sampler: cmaes` want one."""
    sampler: Literal["tpe", "cmaes", "qmc", "gp"] = "tpe"
    pruner: Literal["none", "median", "hyperband", "halving"] = "median"
    startup_trials: Annotated[int, Field(ge=1)] = 5
    """Random trials before the sampler learns and before anything is pruned."""
    prune_after: Annotated[int, Field(ge=0)] = 10
    """No trial is pruned before this epoch."""
    first_defaults: bool = True
    """Trial 0 is the study's own values, where they lie in the space; of a grid, where they are a point of it."""
    space: dict[str, Range] = Field(default_factory=_paper_space)
    """Parameters by their path in the study, e.g. `training.lr: {low: 0.0001, high: 0.01, log: true}` (the default is the paper's Table 1):
    what an arm is trained with (`training`, `synthetic`, `accept`, `classifier`, `augmentation`), and how its images are made, of
    `generate`: `guidance`, `steps`, `image_to_image.share`, `image_to_image.strength`, `fill_to`, `cap`, each with a few `values`. Equal
    settings are generated once, by the trial that comes first, and the final trainings take the images of the best."""
    warm_start_from: str | None = None
    """An earlier search whose best trials are tried first: an experiment above that has a search of its own, or `study/experiment`, the
    newest finished search of another study's experiment in the same store (on one machine: the same TAILFILL_STORE or --workdir).

    Taken are its completed trials that are best by its own objective (of several, the front's first), at most five, after the study's own
    values and as part of `trials`: of each the values of parameters that are in this `space` and lie in it, while the sampler chooses the
    others. `strategy: grid` takes only points of its grid, which then come first. Where there is a verdict, all arms have one or none."""
    workers: Annotated[int, Field(ge=1)] = 2
    """Workers at the start; more or fewer at any moment by `--workers` or `kubectl scale`."""
    budget: Budget = Budget()
    max_failures: Annotated[int, Field(ge=0)] = 10
    """Failed trials (replaced each) after which the search ends short."""
    max_retries: Annotated[int, Field(ge=0)] = 3
    """How often a trial whose worker vanished is queued again without new progress before it counts as failed."""
    lease_seconds: Annotated[float, Field(gt=0)] = 90.0
    """How long a worker that is not heard of keeps its trial; more than the minute that a database may be away."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between a trial's checkpoints in the store; one that is due while another is on its way
    there, or shortly before the end, is left out."""

    @field_validator("objective")
    @classmethod
    def _distinct(cls, objective: Objective) -> Objective:
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
        """All of them, the deciding one first."""
        return (self.objective,) if isinstance(self.objective, str) else self.objective


class Final(Section):
    """The training that is judged on the test split."""

    epochs: Annotated[int, Field(ge=1)] = 60
    seeds: Annotated[int, Field(ge=1)] = 10
    """Repetitions; initialisation, order and pool vary together, paired over experiments."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 5
    """Epochs between checkpoints in the store; one that is due while another is on its way
    there, or shortly before the end, is left out."""


class Verdict(Section):
    """What decides between helps, hurts and no effect found."""

    metric: Literal["rare_macro_f1", "macro_f1", "accuracy", "balanced_accuracy"] = "rare_macro_f1"
    baseline: str = "real"
    """The experiment that the others are compared with."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Family-wise error rate over the comparisons (Holm)."""
    provisional: bool = False
    """Accept fewer seeds than a verdict can come from; the report then says so in place of a verdict."""


class Resources(Section):
    """What the work may use. No part of any key: the same study elsewhere is the same study."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    processes: Annotated[int, Field(ge=1)] | None = None
    """On one machine, stages that run at once; unset is one a GPU, or one a core."""
    cache_gib: Annotated[float, Field(gt=0)] = 4.0
    """Memory that one training may fill with decoded images or features, and local disk that the kept features of all trainings on a node
    may fill. What does not fit is computed each time that it is needed."""
