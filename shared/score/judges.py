"""Trains out-of-fold judges: classifiers that are trained on all folds but one of the real training images, and on no generated image.

`judge` commits their weights and what they say of the real images; `score` reads both.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from shared.classifier.data import TrainingData, image_side
from shared.classifier.fit import TrainedClassifier, fit
from shared.classifier.predictor import Predictor, load_predictor
from shared.classifier.rng import derived_seed
from shared.classifier.runtime import Runtime
from shared.classifier.training_set import TrainingSet
from shared.config.dataset import Rare
from shared.config.stages import Arm, Judges
from shared.data.imageset import ImageSet
from shared.data.split import stratify
from shared.errors import DataError
from shared.log import Log
from shared.score.plausibility import Probabilities, group_accuracy
from shared.tensors import check_shapes, read_tensors, save_tensors

Answers = dict[str, NDArray[np.float32]]
"""Holds what one judge says of real images: `held_out` and `val`, and for the first judge also `train_features` and `val_features`."""
NO_COLUMNS = np.zeros(0, np.int64)
REAL = "real.safetensors"
NETWORK, ANSWERS = "network.safetensors", "answers.safetensors"
"""Name the files of a trained judge's checkpoint."""


@dataclass(frozen=True)
class RealPredictions:
    """Holds what k judges say of the n training images and the m validation images."""

    fold: NDArray[np.int64]
    """Gives the fold of each training image, `[n]`: the number of the judge that was not trained on it."""
    held_out: Probabilities
    """Holds the probabilities of the training images, each by the judge that was not trained on it, `[n, C]`."""
    val: NDArray[np.float32]
    """Holds the probabilities of the validation images by every judge, `[k, m, C]`."""
    train_features: NDArray[np.float32]
    """Holds the pooled features of the training images from the first judge's network, `[n, F]`."""
    val_features: NDArray[np.float32]
    """Holds those of the validation images, `[m, F]`."""

    def save(self, path: Path) -> None:
        """Writes all arrays as safetensors."""
        save_tensors({each.name: torch.from_numpy(getattr(self, each.name)) for each in fields(self)}, path)

    @classmethod
    def load(cls, files: Mapping[str, Path], train: ImageSet, val: ImageSet) -> RealPredictions:
        """Returns what `save` wrote to the file `real.safetensors`; raises DataError if it is missing, or is not about these images."""
        found = read_tensors(files, REAL, "judge")
        n, m, classes = len(train), len(val), train.schema.width
        judges = sum(name.startswith("judge-") for name in files)
        width = found["val_features"].shape[-1] if found.get("val_features", torch.empty(())).ndim else 0
        shapes = {
            "fold": (n,),
            "held_out": (n, classes),
            "val": (judges, m, classes),
            "train_features": (n, width),
            "val_features": (m, width),
        }
        check_shapes(REAL, found, {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, "judge")
        return cls(**{name: tensor.numpy() for name, tensor in found.items()})

    @property
    def judges(self) -> int:
        """Returns the number of judges, k."""
        return len(self.val)

    def accuracy(self, train: ImageSet) -> dict[str, float | None]:
        """Returns the accuracy per group over all training images, each predicted by the judge that was not trained on it."""
        return group_accuracy(train.schema, self.held_out, train.labels)


def judge_arm(config: Judges) -> Arm:
    """Returns the arm of a judge, which trains on real images only."""
    return Arm(
        rare=Rare(below=None),
        accept=None,
        classifier=config.classifier,
        augmentation=config.augmentation,
        images="real",
        training=config.training,
        synthetic=None,
    )


def assign_folds(train: ImageSet, folds: int, seed: int) -> NDArray[np.int64]:
    """Returns the fold of each training image, `[n]`, 0 to `folds` - 1, stratified over all label groups, so that each fold has its part of the tail.

    Images of one product or patient are in one fold: a judge that saw one of them knows the others. Raises DataError if there are fewer
    products or patients than folds.
    """
    units = train.unit_numbers()
    if (found := len(np.unique(units))) < folds:
        raise DataError(
            f"score.folds: must be at most the {found} products, patients and the like of train, got {folds}"
        )
    return stratify(train.labels, units, [1 / folds] * folds, seed)


def train_judges(
    config: Judges, train: ImageSet, val: ImageSet, fold: NDArray[np.int64], out: Path, runtime: Runtime
) -> RealPredictions:
    """Trains a judge for each fold of the training images (`fold`, `[n]`), and returns what the judges say of the real images.

    It writes their weights into the folder `out`, as `judge-<fold>.safetensors`. Each training is checkpointed, and so is each trained
    judge: an interrupted run continues from there. Raises Stopped, and what training raises.
    """
    numbers = range(int(fold.max()) + 1)
    answers = [
        _judge(config, train, val, fold, number, out, runtime)
        for number in Log("judge").progress(numbers, "judges", len(numbers), "judges")
    ]
    held_out = np.empty(train.labels.shape, np.float32)
    for number, answer in enumerate(answers):
        held_out[fold == number] = answer["held_out"]
    return RealPredictions(
        fold,
        held_out,
        np.stack([answer["val"] for answer in answers]),
        answers[0]["train_features"],
        answers[0]["val_features"],
    )


def load_judge(config: Judges, files: Mapping[str, Path], number: int, images: ImageSet, runtime: Runtime) -> Predictor:
    """Returns the judge of a fold from `files`, which `judge` committed, by name. `images` are the training images.

    Raises what `load_predictor` raises.
    """
    side = image_side(images)
    return load_predictor(judge_arm(config), images.schema, side, (files, _weights_file(number)), "judge", runtime)


def train_classifier(
    config: Judges, images: ImageSet, val: ImageSet, name: str, number: int, log: Log, runtime: Runtime
) -> TrainedClassifier:
    """Trains a classifier as the judges are trained, on `images`, real or generated, with checkpoints under `name`."""
    arm = judge_arm(config)
    n, groups = len(images), len(images.schema.groups)
    training = TrainingSet(images, np.zeros(n, np.bool_), np.ones((n, groups), np.bool_))
    data = TrainingData.build(arm, training, val, NO_COLUMNS, runtime)
    epochs = config.epochs
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


def _judge(
    config: Judges,
    train: ImageSet,
    val: ImageSet,
    fold: NDArray[np.int64],
    number: int,
    out: Path,
    runtime: Runtime,
) -> Answers:
    """Trains the judge of a fold, unless a checkpoint has it, writes its weights into `out`, and returns its answers."""
    checkpoints, weights = runtime.checkpoints(f"trained-{number}"), out / _weights_file(number)
    if (found := checkpoints.load()) is not None:
        shutil.copyfile(found[0][NETWORK], weights)
        return {name: tensor.numpy() for name, tensor in read_tensors(found[0], ANSWERS, "judge").items()}
    held_out = train.take(np.flatnonzero(fold == number))
    rest = train.take(np.flatnonzero(fold != number))
    trained = train_classifier(config, rest, held_out, "judge", number, Log("judge"), runtime)
    answers = {"held_out": trained.predict(held_out), "val": trained.predict(val)}
    if number == 0:
        for name, images in (("train_features", train), ("val_features", val)):
            runtime.stop.raise_if_set()
            answers[name] = trained.features(images)
    trained.save(weights)
    with TemporaryDirectory() as folder:
        kept = Path(folder) / ANSWERS
        save_tensors({name: torch.from_numpy(values) for name, values in answers.items()}, kept)
        checkpoints.save({NETWORK: weights, ANSWERS: kept})
    return answers


def _weights_file(number: int) -> str:
    return f"judge-{number}.safetensors"
