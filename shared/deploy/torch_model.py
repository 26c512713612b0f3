"""Predicts labels of images by the committed weights of a study, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from shared.classifier.precision import autocast, to_float_images
from shared.classifier.predictor import Predictor, load_predictor
from shared.classifier.runtime import Runtime
from shared.config.dataset import BoxSource, Dataset, DeepFashionSource
from shared.data.canonical import Reading
from shared.data.schema import Labels, LabelSchema
from shared.data.sources.boxes import is_cut_out
from shared.deploy.choose import Chosen, Repetition
from shared.deploy.description import Description, Preprocessing
from shared.metrics.abstention import measure_abstention
from shared.metrics.calibration import Temperatures, calibrated
from shared.metrics.classification import best_thresholds
from shared.metrics.counts import threshold_array, thresholds_by_class

CPU_BATCH, GPU_BATCH = 32, 128


@dataclass(frozen=True)
class TorchModel:
    """Holds the networks of one or several repetitions, whose calibrated probabilities are averaged."""

    description: Description
    members: tuple[tuple[Predictor, Temperatures], ...]

    @property
    def batch(self) -> int:
        """Returns the number of images that are given to the networks at a time."""
        return GPU_BATCH if self.members[0][0].device.type == "cuda" else CPU_BATCH

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns calibrated probabilities `[n, C]` of pixels `[n, 3, r, r]`, 0 to 255."""
        schema = self.description.schema_
        images = torch.from_numpy(pixels)
        each = [calibrated(schema, logits_of(predictor, images), t) for predictor, t in self.members]
        return np.asarray(np.mean(each, axis=0, dtype=np.float64), np.float32)


def logits_of(predictor: Predictor, pixels: torch.Tensor) -> NDArray[np.float32]:
    """Returns logits `[n, C]` of pixels, uint8 `[n, 3, r, r]`."""
    network = predictor.network.eval()
    with torch.inference_mode(), autocast(predictor.device):
        logits: NDArray[np.float32] = (
            network(network.frozen_outputs(to_float_images(pixels, predictor.device))).float().cpu().numpy()
        )
    return logits


def load_model(chosen: Chosen, ensemble: bool, runtime: Runtime) -> TorchModel:
    """Returns the best repetition of the chosen experiment, or with `ensemble` all of them; raises what `load_predictor` raises."""
    used = list(chosen.repetitions.values()) if ensemble else [chosen.best]
    members = tuple(
        (load_repetition(each, chosen.info.resolution, runtime), each.calibration.temperatures) for each in used
    )
    return TorchModel(describe(chosen, used, members[0][0]), members)


def load_repetition(repetition: Repetition, side: int, runtime: Runtime) -> Predictor:
    """Returns the network of a repetition, which was trained on images of `side` pixels."""
    weights = (repetition.files("model.safetensors"), "model.safetensors")
    return load_predictor(repetition.arm, repetition.schema, side, weights, "final", runtime)


def describe(chosen: Chosen, used: Sequence[Repetition], predictor: Predictor) -> Description:
    """Returns the description of one repetition, or of several as an ensemble, with the risk of its answers on the test split."""
    schema, trunk = chosen.info.schema_, predictor.network.parts
    dataset = chosen.study.dataset
    reading = Reading.of(dataset)
    if len(used) == 1:
        temperatures, thresholds = used[0].calibration.temperatures, used[0].calibration.thresholds
        which = f"of its {len(chosen.repetitions)} repetitions, number {used[0].number} has the best {chosen.scores.metric} on the validation split"
    else:
        temperatures, thresholds = {}, _ensemble_thresholds(schema, used, chosen.study.folds)
        which = f"all of its {len(used)} repetitions are averaged"
    limits = threshold_array(schema, thresholds)
    test, labels = together([(each.test.calibrated, each.test.labels) for each in used], chosen.study.folds)
    return Description(
        study=chosen.study.name,
        experiment=chosen.experiment,
        repetitions=tuple(each.number for each in used),
        chosen=f"{chosen.experiment}: {chosen.why}; {which}",
        groups=schema.groups,
        preprocessing=Preprocessing(
            stored_resolution=chosen.info.resolution,
            fit=dataset.fit,
            resolution=trunk.resolution,
            mean=trunk.mean,
            std=trunk.std,
            window=reading.window,
            most_pixels=reading.most_pixels,
            boxed=_boxed(dataset, used[0].test.paths[0]),
        ),
        temperatures=temperatures,
        thresholds=thresholds,
        abstention=measure_abstention(schema, test, labels, limits),
        head=used[0].arm.classifier.head,
    )


def _boxed(dataset: Dataset, path: str) -> bool:
    """Returns whether the images of a data set, one of which has this path, were cut to their bounding boxes."""
    if isinstance(dataset, DeepFashionSource):
        return dataset.crop
    return isinstance(dataset, BoxSource) and is_cut_out(path)


def together(answers: Sequence[tuple[NDArray[np.float32], Labels]], folds: bool) -> tuple[NDArray[np.float64], Labels]:
    """Returns the mean probabilities of several models and the labels, both `[m, C]`.

    With `folds` each model has images of its own, which the others were trained on: then those of all models stand one after the other.
    """
    probabilities, labels = zip(*answers, strict=True)
    if folds:
        return np.concatenate(probabilities).astype(np.float64), np.concatenate(labels)
    return np.asarray(np.mean(probabilities, axis=0, dtype=np.float64)), labels[0]


def _ensemble_thresholds(schema: LabelSchema, used: Sequence[Repetition], folds: bool) -> dict[str, float]:
    """Returns the thresholds of the averaged probabilities with the greatest F1 on the validation split, by class of the `any` groups."""
    mean, labels = together([(each.validation_calibrated, each.validation[1]) for each in used], folds)
    return thresholds_by_class(schema, best_thresholds(schema, mean, labels))
