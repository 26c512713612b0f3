"""Declares the stages: the config that each receives, and everything else that must be known about it.

A stage sees only the part of the study that is in its key, so that no value can influence a result without changing the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from shared.config.base import Section
from shared.config.dataset import Dataset, Fold, Rare
from shared.config.forecast import RunForecast
from shared.config.generation import Accept, AnyFinetune, Generate
from shared.config.near import near
from shared.config.prices import Prices
from shared.config.search import Final, Search, Verdict
from shared.config.training import Augmentation, Classifier, Images, Synthetic, Training
from shared.errors import ConfigError

Stage = Literal["prepare", "weights", "finetune", "generate", "judge", "score", "tune", "final", "report"]


class PrepareConfig(Section):
    """Configures `prepare`, which reads the image source, has no inputs, and commits the data set."""

    dataset: Dataset
    source_digest: str | None = None
    """Gives the digest of the source's files (`shared.data.sources.digest`); None for drawn garments."""
    rare: Rare
    seed: int
    fold: Fold | None = Field(default=None, exclude_if=lambda fold: fold is None)
    """Names the fold that is the test split, if each repetition tests on one of its own; None if all share a test split."""


class WeightsConfig(Section):
    """Configures `weights`, which has no inputs and commits files of one hub repository, each under its path there."""

    kind: str
    """Names the generator whose base it is; `timm` for weights of a classifier, `few-step` for the LoRA of `generate.few_step`."""
    name: str
    """Names the repository, or the timm model whose repository timm knows."""
    revision: str | None
    """Names the commit, branch or tag. None takes the newest commit when the weights are downloaded."""
    file: str | None = Field(default=None, exclude_if=lambda file: file is None)
    """Names the file with the LoRA of `generate.few_step`; None for any other weights."""


class WithWeights(Section):
    """Extends configs that may name weights, or a review of generated images, by their location."""

    weights: dict[str, str] = Field(default_factory=dict)
    """Maps the location of weights and reviews to their SHA-256 (`shared.weights.digests`, `shared.data.review`), which the key contains in
    place of the location."""


class FinetuneConfig(WithWeights):
    """Configures `finetune`. Its inputs are `prepare`, and `weights/base` if the base comes from the hub."""

    finetune: AnyFinetune
    rare: Rare
    seed: int


class GenerateConfig(Section):
    """Configures `generate`. Its inputs are `prepare`, `finetune`, `weights/base` if the base comes from the hub, and `weights/few-step` if
    the LoRA of `generate.few_step` does."""

    generate: Generate
    base: str | None = None
    """Gives the present location of the base model of `finetune`, which may have been moved since; None if it has no base."""
    rare: Rare
    seed: int
    pool: int
    """Gives the number of the pool of images; with a verdict, there is one pool per repetition."""
    weights: dict[str, str] = Field(default_factory=dict)
    """Maps the location of the LoRA for few steps to its SHA-256, which the key contains in place of the location; the base is an input of
    `finetune`."""


class Judges(WithWeights):
    """Describes the judges of generated images, a classifier per fold of the real training images, for the two stages that need them."""

    folds: int
    epochs: int
    classifier: Classifier
    """Describes their network: the top level's classifier, or the model that `score` names."""
    augmentation: Augmentation
    training: Training
    seed: int


class JudgeConfig(Judges):
    """Configures `judge`, which trains the judges.

    Its inputs are `prepare`, and `weights/judges` if the judges start from hub weights.
    """


class ScoreConfig(Judges):
    """Configures `score`, which asks the judges, and trains a classifier like them on generated images alone.

    Its inputs are `prepare`, `generate` and `judge`, and `weights/judges` if the judges start from hub weights.
    """


class Arm(Section):
    """Describes a classifier and everything that it is trained with, which `tune` varies and `final` repeats."""

    rare: Rare
    accept: Accept | None
    """Sets which generated images it accepts; None if the arm has real images only."""
    classifier: Classifier
    augmentation: Augmentation
    images: Images
    training: Training
    synthetic: Synthetic | None
    """Says how generated images are used; None if the arm has real images only."""
    generate: Generate | None = None
    """Says how images are generated, if the search varies it. Each trial then trains on images generated with its own values, in place of an input's."""

    @property
    def takes_all(self) -> bool:
        """Returns whether it trains on all generated images alike, so that it needs no scores."""
        checked = self.synthetic is not None and self.synthetic.groups != "all"
        return self.accept is None or (self.accept.takes_all and not checked)


class TrialImages(Section):
    """Holds what a trial needs beside its arm to have its own images made by the stages `generate` and `score`."""

    base: str | None
    """Gives the location of the base model, as in `GenerateConfig`."""
    score: ScoreConfig | None
    """Holds None if the arm takes all images, so that they are not scored."""
    seed: int
    """Holds the study's seed, as in `GenerateConfig`."""
    versions: dict[Literal["generate", "score"], int]
    """Gives the versions of both stages. They are in the keys of the trials' images, and therefore belong in the search's key."""


class Repetitions(Section):
    """Says how a search is repeated, as a study with a verdict does: each repetition has its own trials, seed and pool of images."""

    count: int
    """Counts the repetitions, `final.seeds`."""
    seed: int
    """Holds the study's seed, which determines the points that all arms try in a repetition."""
    shared: tuple[str, ...]
    """Lists the paths that all arms search, in the baseline's order."""


class TuneConfig(WithWeights):
    """Configures `tune`.

    Its inputs are `prepare`; `generate/<pool>` and `score/<pool>` of each pool if its images are not `real`, without the scores if it takes
    all images, or `finetune/<pool>` in their place if each trial makes its own images; `parameters`, the tune whose parameters are taken
    over; `warm_start`, the tune whose best trials the search tries first; `weights/<timm model>` for each model that may start from hub
    weights; and, if trials make images, `judge` and the `weights/` inputs of `generate` and `score`. If each repetition tests on a fold of its own,
    `prepare/<pool>` and `judge/<pool>` take the places of `prepare` and `judge`.
    """

    arm: Arm
    images: TrialImages | None = None
    """Describes the trials' own images; set if, and only if, `arm.generate` is."""
    pinned: tuple[str, ...] = ()
    """Lists the paths that the experiment sets itself, which are therefore not taken over from `parameters`."""
    search: Search
    seed: int
    """Holds the experiment's seed, a hash of the study's and its own."""
    repetitions: Repetitions | None = None
    """Says how the search is repeated; None if there is one search for all repetitions."""


class FinalConfig(WithWeights):
    """Configures `final`. Its inputs are `prepare`; `generate` and `score` of its pool if its images are not `real`, without `score` if it takes them all; and
    `weights/<timm model>` for each model that it may start from."""

    arm: Arm
    parameters: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Holds the parameters that a search found, by path, which replace the arm's own."""
    final: Final
    seed: int
    """Holds the repetition's seed, a hash of the experiment's seed and `repeat`."""
    repeat: int
    """Gives the number of this repetition, below `final.seeds`, by which experiments are paired."""


class ReportedExperiment(Section):
    """Holds the part of an experiment that the report needs."""

    name: str
    title: str | None
    paper_row: int | None
    images: Images
    augmentation: Augmentation
    parameters_from: str | None


class ReportConfig(Section):
    """Configures `report`.

    Its inputs are `prepare`; `final/<name>/<repeat>` for each experiment, and `tune/<name>`, `judge/<name>`, `finetune/<name>/<pool>`,
    `generate/<name>/<pool>` and `score/<name>/<pool>` if they ran; and `weights/<name>` for each download from the hub. If each repetition tests on a
    fold of its own, `prepare/<repeat>` and `judge/<name>/<pool>` are the others' data sets and judges, and those of 0 have the short names.
    """

    study: str
    seed: int
    verdict: Verdict | Literal["none"]
    rare: Rare
    experiments: tuple[ReportedExperiment, ...]
    prices: Prices | None = Field(default=None, exclude_if=lambda prices: prices is None)
    """Gives the prices with which costs are also said in money."""
    forecast: RunForecast | None = Field(default=None, exclude_if=lambda forecast: forecast is None)
    """Gives the forecast that the run was begun with, to be shown beside what happened."""


PRETRAINED = "classifier.pretrained"
"""Names the only path of a search space whose values may be locations of weights."""

StageConfig = (
    PrepareConfig
    | WeightsConfig
    | FinetuneConfig
    | GenerateConfig
    | JudgeConfig
    | ScoreConfig
    | TuneConfig
    | FinalConfig
    | ReportConfig
)


@dataclass(frozen=True)
class StageKind:
    """Declares a stage. `jobs/<name>.py` runs it, and its image, chart template, S3 folder and tests have its name."""

    config: type[StageConfig]
    version: int
    """Gives the version of its output, which is part of the key. Raise it if the output changes for the same config and inputs."""
    run: str
    """Gives the dotted path of the function `run(config, context)`."""
    work: str | None = None
    """Gives the dotted path of the function that a worker runs, `work(open_contexts)`; None if the stage has no workers. Calling
    `open_contexts` returns the contexts of the tasks on which it may work now."""
    on_device: bool = False
    """Says whether the process itself computes on `resources.device`, and may hold a GPU."""
    sharded: bool = False
    """Says whether several processes make the result together, each of them a share by index."""
    blocks: bool = False
    """Says whether one process runs several of its tasks, one after the other, because there are many of them and each may be short."""
    database: bool = False
    """Says whether it needs PostgreSQL."""
    online: bool = False
    """Says whether it may download from the Hugging Face hub."""
    operational: tuple[str, ...] = ()
    """Lists the paths of the config that do not influence the result, and are therefore not part of the key."""
    report_files: tuple[str, ...] = ()
    """Lists the committed files that the report reads, by glob pattern."""


STAGES: Mapping[Stage, StageKind] = MappingProxyType(
    {
        "prepare": StageKind(
            PrepareConfig,
            version=2,
            run="jobs.prepare:run",
            operational=("dataset.root",),  # the key contains the digest of its files instead
            report_files=("dataset.json", "images-*"),
        ),
        "weights": StageKind(WeightsConfig, version=1, run="jobs.weights:run", online=True),
        "finetune": StageKind(
            FinetuneConfig,
            version=2,
            run="jobs.finetune:run",
            on_device=True,
            operational=("finetune.checkpoint_every",),
            report_files=("curve.json", "samples.png"),
        ),
        "generate": StageKind(
            GenerateConfig,
            version=2,
            run="jobs.generate:run",
            on_device=True,
            sharded=True,
            operational=("base",),
            report_files=("images-*",),
        ),
        "judge": StageKind(JudgeConfig, version=1, run="jobs.judge:run", on_device=True),
        "score": StageKind(
            ScoreConfig,
            version=5,
            run="jobs.score:run",
            on_device=True,
            report_files=("scores.parquet", "judges.json", "copies.png"),
        ),
        "tune": StageKind(
            TuneConfig,
            version=5,
            run="jobs.tune:run",
            work="jobs.tune:work",
            database=True,
            operational=(
                "images.base",
                "search.workers",
                "search.lease_seconds",
                "search.max_retries",
                "search.checkpoint_every",
                "search.warm_start_from",  # the search that it names is an input
            ),
            report_files=("best.json", "trials.parquet", "importance.json"),
        ),
        "final": StageKind(
            FinalConfig,
            version=6,
            run="jobs.final:run",
            on_device=True,
            blocks=True,
            operational=("final.seeds", "final.checkpoint_every"),
            report_files=(
                "metrics.json",
                "predictions.parquet",
                "validation.parquet",
                "curve.json",
                "thresholds.json",
                "calibration.json",
                "reviewed.csv",
            ),
        ),
        "report": StageKind(
            ReportConfig,
            version=10,
            run="jobs.report:run",
            operational=(
                "prices",
                "forecast",
            ),  # like the hours themselves, they say what a result cost, not what it is
        ),
    }
)
"""Maps names to stages, in the order in which they run."""


def stage_named(name: str, asked_by: str) -> Stage:
    """Returns the stage of that name; raises ConfigError, which starts with `asked_by` and lists the stages, if there is none."""
    for stage in STAGES:
        if stage == name:
            return stage
    raise ConfigError(f"{asked_by}: there is no such stage{near(name, list(STAGES))}")
