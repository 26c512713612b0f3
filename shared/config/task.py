"""What one stage run is told: its part of the study, and where its inputs are.

A stage sees only the part of the study that is in its key, so that no value can influence a result without changing the key.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from shared.config.base import Section
from shared.config.dataset import Dataset, Rare
from shared.config.generation import Accept, AnyFinetune, Generate, Score
from shared.config.search import Final, Resources, Search, Verdict
from shared.config.training import Augmentation, Classifier, Images, Synthetic, Training

Stage = Literal["prepare", "weights", "finetune", "generate", "score", "tune", "final", "report"]
STAGES: tuple[Stage, ...] = ("prepare", "weights", "finetune", "generate", "score", "tune", "final", "report")


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
    """SHA-256 of what lies there, by location (`shared.weights`): it stands in the key in place of the location."""


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
CONFIGS: dict[Stage, type[StageConfig]] = {
    "prepare": PrepareConfig,
    "weights": WeightsConfig,
    "finetune": FinetuneConfig,
    "generate": GenerateConfig,
    "score": ScoreConfig,
    "tune": TuneConfig,
    "final": FinalConfig,
    "report": ReportConfig,
}


OPERATIONAL: dict[Stage, tuple[str, ...]] = {
    "prepare": ("dataset.root",),  # the digest of the files stands for it
    "finetune": ("finetune.checkpoint_every",),
    "generate": ("base",),
    "tune": (
        "images.base",
        "search.workers",
        "search.lease_seconds",
        "search.max_retries",
        "search.checkpoint_every",
        "search.warm_start_from",  # the search that it names is an input
    ),
    "final": ("final.seeds", "final.checkpoint_every"),
}
"""Values that a stage needs while it works and that leave its result as it is: no part of its key."""


def keyed(stage: Stage, config: dict[str, Any]) -> dict[str, Any]:
    """The part of a stage's config that is in its key and in its manifest."""
    left = copy.deepcopy(config)
    operational = OPERATIONAL.get(stage, ())
    if stage == "prepare" and left.get("source_digest") is None:
        operational = ()  # nothing else tells one source from another
    for path in operational:
        *sections, name = path.split(".")
        section = left
        for step in sections:
            section = section.get(step) or {}  # a section may be left out: its defaults stand
        section.pop(name, None)
    weights: dict[str, str] = left.pop("weights", {})
    if weights and PRETRAINED in left.get("search", {}).get("space", {}):
        return left | {"weights": weights}  # what such a search finds is a location, which must go on to hold
    by_content: dict[str, Any] = _by_content(left, weights)
    return by_content


def named_weights(config: Any, weights: Mapping[str, str]) -> dict[str, str]:
    """Those of the weights, by location, that a config names."""
    if isinstance(config, dict | list):
        inner = config.values() if isinstance(config, dict) else config
        return {at: digest for value in inner for at, digest in named_weights(value, weights).items()}
    return {config: weights[config]} if isinstance(config, str) and config in weights else {}


def _by_content(config: Any, weights: Mapping[str, str]) -> Any:
    if isinstance(config, dict):
        return {name: _by_content(value, weights) for name, value in config.items()}
    if isinstance(config, list):
        return [_by_content(value, weights) for value in config]
    return f"sha256:{weights[config]}" if isinstance(config, str) and config in weights else config


class Input(Section):
    """A committed artifact that a stage reads."""

    study: str | None = Field(default=None, exclude_if=lambda study: study is None)
    """Where it is another study's, in the same store."""
    stage: Stage
    key: str
    digest: str
    """Of its manifest's content: lineage, and what makes a changed input change this stage's key."""


class Task(Section):
    """The file that `tailfill stage NAME --config FILE` reads."""

    study: str
    stage: Stage
    key: str
    experiment: str | None = None
    """For people and logs; tasks of several experiments that are equal run once."""
    config: dict[str, Any]
    """The stage's config (above), as JSON."""
    inputs: dict[str, Input] = Field(default_factory=dict)
    resources: Resources = Resources()

    def stage_config(self) -> StageConfig:
        """The config as its stage's type; raises pydantic's ValidationError where it is not."""
        import json

        return CONFIGS[self.stage].model_validate_json(json.dumps(self.config))
