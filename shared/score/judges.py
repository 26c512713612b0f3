"""Trains out-of-fold judges: classifiers that are trained on all folds but one of the real training images, and on no generated image."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from shared.artifacts.checkpoints import Checkpoints
from shared.classifier.data import TrainingData
from shared.classifier.fit import TrainedClassifier, fit
from shared.classifier.rng import derived_seed
from shared.classifier.runtime import Runtime
from shared.classifier.training_set import TrainingSet
from shared.config.dataset import Rare
from shared.config.stages import Arm, ScoreConfig
from shared.data.imageset import ImageSet
from shared.data.split import stratify
from shared.errors import DataError
from shared.log import Log

Probabilities = NDArray[np.float32]
"""`[n, C]`."""
T = TypeVar("T", "JudgePredictions", "FeatureSets")
NO_COLUMNS = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Images:
    """The image sets that scoring reads."""

    train: ImageSet
    val: ImageSet
    test: ImageSet
    generated: ImageSet


@dataclass(frozen=True)
class FeatureSets:
    """The pooled features `[n, F]` of image sets, from the first judge's network."""

    train: NDArray[np.float32]
    val: NDArray[np.float32]
    generated: NDArray[np.float32]


@dataclass(frozen=True)
class JudgePredictions:
    """One judge's probabilities for the training images of its held-out fold, the validation images and the generated ones."""

    held_out: Probabilities
    val: Probabilities
    generated: Probabilities


def judge_arm(config: ScoreConfig) -> Arm:
    """Returns the arm of a judge: the study's classifier and training, or the model of `score`, on real images only."""
    return Arm(
        rare=Rare(below=None),
        accept=None,
        classifier=config.judge,
        augmentation=config.augmentation,
        images="real",
        training=config.training,
        synthetic=None,
    )


def assign_folds(train: ImageSet, folds: int, seed: int) -> NDArray[np.int64]:
    """Returns the fold of each training image, `[n]`, 0 to `folds` - 1, stratified over all label groups, so that each has its part of the tail.

    Images of one product or patient are in one fold: a judge that saw one of them knows the others. Raises DataError if there are fewer of
    these than folds.
    """
    units = train.unit_numbers()
    if (found := len(np.unique(units))) < folds:
        raise DataError(
            f"score.folds: must be at most the {found} products, patients and the like of train, got {folds}"
        )
    return stratify(train.labels, units, [1 / folds] * folds, seed)


def train_judges(
    config: ScoreConfig, images: Images, fold: NDArray[np.int64], runtime: Runtime
) -> tuple[list[JudgePredictions], FeatureSets]:
    """Trains a judge for each fold of the training images (`fold`, `[n]`) and returns its predictions, and the first one's features.

    Each training is checkpointed, and so are a judge's predictions: an interrupted run continues from there. Raises Stopped, and what
    training raises.
    """
    predictions: list[JudgePredictions] = []
    features: FeatureSets | None = None
    numbers = range(int(fold.max()) + 1)
    for number in Log("score").progress(numbers, "judges", len(numbers), "judges"):
        kept = _load(runtime.checkpoints(f"opinion-{number}"))
        if kept is None:
            kept = _predict_fold(config, images, fold, number, runtime)
            _save(runtime.checkpoints(f"opinion-{number}"), kept)
        predictions.append(_from_arrays(JudgePredictions, kept, ""))
        if number == 0:
            features = _from_arrays(FeatureSets, kept, "features_")
    assert features is not None
    return predictions, features


def train_classifier(
    config: ScoreConfig, images: ImageSet, val: ImageSet, name: str, number: int, runtime: Runtime
) -> TrainedClassifier:
    """Trains a classifier like the judges on `images`, real or generated, with checkpoints under `name`."""
    arm = judge_arm(config)
    n, groups = len(images), len(images.schema.groups)
    training = TrainingSet(images, np.zeros(n, np.bool_), np.ones((n, groups), np.bool_))
    data = TrainingData.build(arm, training, val, NO_COLUMNS, runtime)
    log = Log("score")
    epochs = config.score.epochs
    return fit(
        arm,
        data,
        epochs,
        derived_seed(name, config.seed, number),
        runtime.checkpoints(f"{name}-{number}"),
        runtime.stop,
        lambda record: log.info(
            f"{name} {number}", epoch=f"{record.epoch + 1}/{epochs}", val=round(record.val_accuracy, 3)
        ),
    )


def _predict_fold(
    config: ScoreConfig, images: Images, fold: NDArray[np.int64], number: int, runtime: Runtime
) -> dict[str, NDArray[np.float32]]:
    held_out = images.train.take(np.flatnonzero(fold == number))
    trained = train_classifier(
        config, images.train.take(np.flatnonzero(fold != number)), held_out, "judge", number, runtime
    )
    answers = {
        "held_out": trained.predict(held_out),
        "val": trained.predict(images.val),
        "generated": trained.predict(images.generated),
    }
    if number == 0:
        for each in fields(FeatureSets):
            runtime.stop.raise_if_set()
            answers[f"features_{each.name}"] = trained.features(getattr(images, each.name))
    return answers


def _save(checkpoints: Checkpoints, answers: dict[str, NDArray[np.float32]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "opinion.safetensors"
        save_file({name: np.ascontiguousarray(values) for name, values in answers.items()}, path)
        checkpoints.save({"opinion.safetensors": path})


def _load(checkpoints: Checkpoints) -> dict[str, NDArray[np.float32]] | None:
    found = checkpoints.load()
    return None if found is None else dict(load_file(found[0]["opinion.safetensors"]))


def _from_arrays(kind: type[T], kept: dict[str, NDArray[np.float32]], prefix: str) -> T:
    return kind(**{each.name: kept[prefix + each.name] for each in fields(kind)})
