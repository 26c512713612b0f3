"""The stages: what each is told of the study, and all else that must be known of each of them.

A stage sees only the part of the study that is in its key, so that no value can influence a result without changing the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from shared.config.base import Section
from shared.config.dataset import Dataset, Rare
from shared.config.generation import Accept, AnyFinetune, Generate, Score
from shared.config.near import near
from shared.config.search import Final, Search, Verdict
from shared.config.training import Augmentation, Classifier, Images, Synthetic, Training
from shared.errors import ConfigError

Stage = Literal["prepare", "weights", "finetune", "generate", "score", "tune", "final", "report"]


class PrepareConfig(Section):
    """Inputs: none (the source itself). Commits the data set."""

    dataset: Dataset
    source_digest: str | None = None
    """Fingerprint of the source's files (`shared.data.sources.digest`); None for drawn garments."""
    rare: Rare
    seed: int


class WeightsConfig(Section):
    """Inputs: none (the hub). Commits files of one repository, each under its path there."""

    kind: str
    """`timm`, or the generator whose base it is."""
    name: str
    """The repository, or the timm model whose repository timm knows."""
    revision: str | None
    """Commit (or branch, or tag); without one, the commit that the hub has when it is fetched."""


class WithWeights(Section):
    """A config that may name weights by where they lie."""

    weights: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of what lies there, by location (`shared.weights.digests`): it stands in the key in place of the location."""


class FinetuneConfig(WithWeights):
    """Inputs: `prepare`; `weights/base` where the base is the hub's."""

    finetune: AnyFinetune
    rare: Rare
    seed: int


class GenerateConfig(Section):
    """Inputs: `prepare`, `finetune`; `weights/base` where the base is the hub's."""

    generate: Generate
    base: str | None = None
    """Where the base model of `finetune` lies, if it has one: perhaps no longer where it lay then."""
    rare: Rare
    seed: int


class ScoreConfig(WithWeights):
    """Inputs: `prepare`, `generate`; `weights/judges` where the judges begin with hub weights. `classifier`, `augmentation` and
    `training` describe the judges."""

    score: Score
    classifier: Classifier
    augmentation: Augmentation
    training: Training
    seed: int

    @property
    def judge(self) -> Classifier:
        """The judges' network: the classifier, or the score's own model."""
        if self.score.model is None or self.score.model == self.classifier.model:
            return self.classifier
        return Classifier(
            model=self.score.model,
            # weights from a file and a prefix of names belong to the other model
            pretrained=self.classifier.pretrained is True,
            trainable="all",
            head=(),
            resolution=self.classifier.resolution,
        )


class Arm(Section):
    """A classifier and everything that it is trained with: what `tune` varies and `final` repeats."""

    rare: Rare
    accept: Accept | None
    """None where the arm has real images only."""
    replicates: int
    classifier: Classifier
    augmentation: Augmentation
    images: Images
    training: Training
    synthetic: Synthetic | None
    """None where the arm has real images only."""
    generate: Generate | None = None
    """Set where the search varies it: each trial then trains on images made with its own values, in place of those of an input."""


class TrialImages(Section):
    """What a trial needs beside its arm to have its own images made, by the stages `generate` and `score` as everywhere."""

    base: str | None
    """As `generate` has it."""
    judges: ScoreConfig
    seed: int
    """The study's, as `generate` has it."""
    versions: dict[Literal["generate", "score"], int]
    """Their VERSION: in the keys of what trials make, and so in the search's."""


class TuneConfig(WithWeights):
    """Inputs: `prepare`; with images other than `real` also `generate` and `score`, or `finetune` where trials make their own;
    `parameters` where taken from another experiment's tune; `warm_start`, an earlier tune, where the search begins with its
    best trials; `weights/<timm model>` of each model that may begin with hub weights, and where trials make images what `generate`
    and `score` have of these."""

    arm: Arm
    images: TrialImages | None = None
    """Set with `arm.generate`."""
    pinned: tuple[str, ...] = ()
    """Paths that the experiment sets itself: not taken from `parameters`."""
    search: Search
    seed: int


class FinalConfig(WithWeights):
    """Inputs: as tune, and `tune` (its best parameters, by path) where there was a search."""

    arm: Arm
    pinned: tuple[str, ...] = ()
    """Paths that the experiment sets itself: not taken from `parameters`."""
    final: Final
    seed: int
    """The study's seed plus the experiment's."""
    repeat: int
    """Which of the `final.seeds` repetitions this is; experiments are paired by it."""


class ReportedExperiment(Section):
    """What the report needs to know of an experiment."""

    name: str
    title: str | None
    paper_row: int | None
    images: Images
    augmentation: Augmentation
    parameters_from: str | None


class ReportConfig(Section):
    """Inputs: `prepare`; per experiment `final/<name>/<repeat>`, and `tune/<name>`, `finetune/<name>`, `generate/<name>`, `score/<name>`
    where they ran; `weights/<name>` of what came from the hub."""

    study: str
    seed: int
    verdict: Verdict | Literal["none"]
    rare: Rare
    experiments: tuple[ReportedExperiment, ...]


PRETRAINED = "classifier.pretrained"
"""The one path of a search space whose choices may be locations of weights."""

StageConfig = (
    PrepareConfig
    | WeightsConfig
    | FinetuneConfig
    | GenerateConfig
    | ScoreConfig
    | TuneConfig
    | FinalConfig
    | ReportConfig
)


@dataclass(frozen=True)
class StageKind:
    """What must be known of a stage; `jobs/<name>.py` runs it, and its image, chart template, S3 folder and tests have its name."""

    config: type[StageConfig]
    version: int
    """Raise it when the output differs for the same config and inputs: it is part of the key."""
    run: str
    """Dotted path of the function `run(config, context)`."""
    work: str | None = None
    """Dotted path of the function that a worker runs; None if the stage has no workers."""
    on_device: bool = False
    """Whether the process itself computes on `resources.device`, and may hold a GPU."""
    sharded: bool = False
    """Whether several processes make the result together, each its share by index."""
    database: bool = False
    """Whether it needs PostgreSQL."""
    online: bool = False
    """Whether it may go online, to the Hugging Face hub."""
    operational: tuple[str, ...] = ()
    """Paths of the config that a stage needs while it works and that leave its result as it is: they are not part of its key."""
    report_files: tuple[str, ...] = ()
    """The committed files that the report reads, by glob pattern."""


STAGES: Mapping[Stage, StageKind] = MappingProxyType(
    {
        "prepare": StageKind(
            PrepareConfig,
            version=1,
            run="jobs.prepare:run",
            operational=("dataset.root",),  # the digest of the files stands for it
            report_files=("dataset.json", "images-*"),
        ),
        "weights": StageKind(WeightsConfig, version=1, run="jobs.weights:run", online=True),
        "finetune": StageKind(
            FinetuneConfig,
            version=1,
            run="jobs.finetune:run",
            on_device=True,
            operational=("finetune.checkpoint_every",),
            report_files=("curve.json", "samples.png"),
        ),
        "generate": StageKind(
            GenerateConfig,
            version=1,
            run="jobs.generate:run",
            on_device=True,
            sharded=True,
            operational=("base",),
            report_files=("images-*",),
        ),
        "score": StageKind(
            ScoreConfig,
            version=3,
            run="jobs.score:run",
            on_device=True,
            report_files=("scores.parquet", "judges.json", "copies.png"),
        ),
        "tune": StageKind(
            TuneConfig,
            version=3,
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
            version=3,
            run="jobs.final:run",
            on_device=True,
            operational=("final.seeds", "final.checkpoint_every"),
            report_files=("metrics.json", "predictions.parquet", "curve.json", "thresholds.json"),
        ),
        "report": StageKind(ReportConfig, version=4, run="jobs.report:run"),
    }
)
"""All stages in the order of their work."""


def stage_named(name: str, asked_by: str) -> Stage:
    """Returns the stage of that name; raises ConfigError, which begins with `asked_by` and lists the stages, if there is none."""
    for stage in STAGES:
        if stage == name:
            return stage
    raise ConfigError(f"{asked_by}: there is no such stage{near(name, list(STAGES))}")
