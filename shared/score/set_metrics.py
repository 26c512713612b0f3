"""Metrics of the generated images as a set, which `judges.json` holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.classifier.runtime import Runtime
from shared.config.stages import ScoreConfig
from shared.data.imageset import ImageSet
from shared.metrics.classification import evaluate
from shared.metrics.table import METRICS
from shared.score.distribution import kernel_distance, precision_recall_density_coverage
from shared.score.judges import FeatureSets, Images, JudgePredictions, train_classifier
from shared.score.plausibility import group_accuracy
from shared.score.table import all_filled


def out_of_fold_accuracy(
    train: ImageSet, predictions: list[JudgePredictions], fold: NDArray[np.int64]
) -> dict[str, float | None]:
    """Returns the accuracy per group over all training images, each predicted by the judge that was not trained on it."""
    probabilities = np.empty(train.labels.shape, np.float32)
    for number, judge in enumerate(predictions):
        probabilities[fold == number] = judge.held_out
    return group_accuracy(train.schema, probabilities, train.labels)


def of_set(
    config: ScoreConfig, images: Images, predictions: list[JudgePredictions], features: FeatureSets, runtime: Runtime
) -> dict[str, Any]:
    """Returns all metrics of the generated images as a set: `cas`, and the distances between their distribution and that of real images."""
    cas = classification_accuracy_score(config, images, predictions, runtime)
    return {"cas": cas, **distribution(images, features, config.seed)}


def classification_accuracy_score(
    config: ScoreConfig, images: Images, predictions: list[JudgePredictions], runtime: Runtime
) -> dict[str, Any]:
    """Returns the scores on real validation images of a classifier trained on the generated images alone (Ravuri and Vinyals 2019).

    The key `real` holds the judges' mean for comparison.
    """
    trained = train_classifier(config, images.generated, images.val, "cas", 0, runtime)
    schema, labels = images.val.schema, images.val.labels
    filled = all_filled(images.generated)
    own = evaluate(schema, trained.val_probabilities, labels, filled)
    real = [evaluate(schema, judge.val, labels, filled) for judge in predictions]
    keys = [metric.name for metric in METRICS if metric.of_generated]
    return {
        **{key: own[key] for key in keys},
        "groups": {name: values["accuracy"] for name, values in own["groups"].items()},
        "real": {key: _mean([scores[key] for scores in real]) for key in keys},
    }


def distribution(images: Images, features: FeatureSets, seed: int) -> dict[str, float | None]:
    """Returns KID, precision, recall, density and coverage of the generated images against real train and val images of the filled classes."""
    filled = all_filled(images.generated)
    rows = [(real.labels[:, filled] == 1).any(axis=1) for real in (images.train, images.val)]
    real = np.concatenate([features.train[rows[0]], features.val[rows[1]]])
    return {
        "kid": kernel_distance(real, features.generated, seed),
        **precision_recall_density_coverage(real, features.generated),
    }


def _mean(values: list[float | None]) -> float | None:
    """Returns the mean of the numbers that are defined, or None."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
