"""Computes the metrics of the generated images as a set, which `judges.json` holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from shared.classifier.runtime import Runtime
from shared.config.stages import ScoreConfig
from shared.log import Log
from shared.metrics.classification import evaluate
from shared.metrics.table import METRICS
from shared.score.distribution import kernel_distance, precision_recall_density_coverage
from shared.score.judges import RealPredictions, train_classifier
from shared.score.near_duplicates import Images
from shared.score.neighbours import Features
from shared.score.table import all_filled


def of_set(
    config: ScoreConfig, images: Images, judged: RealPredictions, features: Features, runtime: Runtime
) -> dict[str, Any]:
    """Returns all metrics of the generated images as a set: `cas`, and the distances between their distribution and that of real images.

    `features` are those of the generated images, `[n, F]`, by the same network as those of the real images.
    """
    cas = classification_accuracy_score(config, images, judged, runtime)
    return {"cas": cas, **distribution(images, judged, features, config.seed)}


def classification_accuracy_score(
    config: ScoreConfig, images: Images, judged: RealPredictions, runtime: Runtime
) -> dict[str, Any]:
    """Returns the scores on real validation images of a classifier trained on the generated images alone (Ravuri and Vinyals 2019).

    The key `real` holds the judges' mean for comparison.
    """
    trained = train_classifier(config, images.generated, images.val, "cas", 0, Log("score"), runtime)
    schema, labels = images.val.schema, images.val.labels
    filled = all_filled(images.generated)
    own = evaluate(schema, trained.val_probabilities, labels, filled)
    real = [evaluate(schema, probabilities, labels, filled) for probabilities in judged.val]
    keys = [metric.name for metric in METRICS if metric.of_generated]
    return {
        **{key: own[key] for key in keys},
        "groups": {name: values["accuracy"] for name, values in own["groups"].items()},
        "real": {key: _mean([scores[key] for scores in real]) for key in keys},
    }


def distribution(images: Images, judged: RealPredictions, features: Features, seed: int) -> dict[str, float | None]:
    """Returns KID, precision, recall, density and coverage of the generated images against real train and val images of the filled classes."""
    filled = all_filled(images.generated)
    rows = [(real.labels[:, filled] == 1).any(axis=1) for real in (images.train, images.val)]
    real = np.concatenate([judged.train_features[rows[0]], judged.val_features[rows[1]]])
    return {
        "kid": kernel_distance(real, features, seed),
        **precision_recall_density_coverage(real, features),
    }


def _mean(values: list[float | None]) -> float | None:
    """Returns the mean of the numbers that are defined, or None."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
