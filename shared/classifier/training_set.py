"""Chooses the images that an arm trains on: real ones, and accepted generated ones or, for the placebo, copies of real ones in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shared.config.stages import Arm
from shared.data.accept import accepted_images
from shared.data.encoded import EncodedImages
from shared.data.imageset import NOISE_SHARE, ImageSet
from shared.data.manual_images import contrast_and_sharpen, copied_rows
from shared.data.review import KEEP, Review
from shared.data.schema import Labels
from shared.errors import DataError


@dataclass(frozen=True)
class SoftLabels:
    """Says how the labels of images are shared with those of the real images from which they start."""

    labels: Labels
    """Holds the labels of the image at the start, `[n, C]`; an image's own if it starts from none of another class."""
    noise: NDArray[np.float64]
    """Gives the share of noise on the image at the start, `[n]`; 1 if there is none, so that an image has its own labels alone."""

    def own_share(self, power: float) -> NDArray[np.float64]:
        """Returns the share of an image's own labels, `[n]`; that of the labels at its start is the rest (Diff-Mix, Wang et al. 2024)."""
        share: NDArray[np.float64] = self.noise**power
        return share


@dataclass(frozen=True)
class TrainingSet:
    """Holds the effective training set of one arm: real images first, then added ones of rare classes."""

    images: ImageSet
    generated: NDArray[np.bool_]
    """Says whether an image is generated, or a copy of the placebo, `[n]`: `synthetic.share` and `synthetic.loss_weight` apply to these."""
    loss_mask: NDArray[np.bool_]
    """Says whether the loss of a label group counts for an image, `[n, G]`."""
    soft: SoftLabels | None = None
    """Says how labels are shared; None if each image has its own labels alone."""

    def __len__(self) -> int:
        return len(self.images)


def effective_training_set(
    arm: Arm,
    train: ImageSet,
    generated: ImageSet | None,
    scores: pa.Table | None,
    rare: NDArray[np.int64],
    review: Review | None = None,
) -> TrainingSet:
    """Returns the images that an arm trains on.

    `train` is the training split. `generated` has the generated images, `scores` a row for each of them (None if the arm takes them all),
    `rare` the columns of the rare classes, and `review` is the one that `accept.reviewed` names. `real` takes the training split only.
    `real+synthetic` adds the images that `arm.accept` accepts. `real+copies` adds, for each of those, a copy of the training image whose
    labels it carries. Generated images that start from a similar class have soft labels, and copies have not. `training.manual_images` adds
    the paper's copies with more contrast and sharpening to the real images.

    Raises DataError if an input is missing or does not fit.
    """
    real = _with_manual_images(train, arm.training.manual_images, rare)
    groups = len(train.schema.groups)
    if arm.images == "real":
        return TrainingSet(real, np.zeros(len(real), np.bool_), np.ones((len(real), groups), np.bool_))
    if generated is None or arm.accept is None or generated.extra is None:
        raise DataError(f"images: {arm.images} needs generated images; run `generate` first")
    if scores is None:
        if not arm.takes_all:
            raise DataError(f"images: {arm.images} needs the scores of the generated images; run `score` first")
        rows = np.arange(len(generated))
        mask = np.ones((len(rows), groups), np.bool_)
    else:
        rows = np.flatnonzero(accepted_images(arm.accept, generated, scores, review))
        mask = _loss_mask(arm, train, scores.take(pa.array(rows)))
        if review is not None:
            mask[review.decisions_of(generated)[rows] == KEEP] = True  # a person has checked them in the judges' place
    sources = generated.extra["source"].to_numpy()[rows].astype(np.int64)
    added = train.take(sources) if arm.images == "real+copies" else generated.take(rows)
    images = _joined(real, added)
    return TrainingSet(
        images,
        np.repeat([False, True], [len(real), len(added)]),
        np.concatenate([np.ones((len(real), groups), np.bool_), mask]),
        None if arm.images == "real+copies" else _soft_labels(images, train, added),
    )


def _soft_labels(images: ImageSet, train: ImageSet, added: ImageSet) -> SoftLabels | None:
    """Returns how labels are shared; None if no added image started from a similar class. `added` are the last of the `images`."""
    if added.extra is None or NOISE_SHARE not in added.extra.column_names:
        return None
    start, noise = added.extra["start"], added.extra[NOISE_SHARE]
    started = np.flatnonzero(noise.is_valid().to_numpy())
    rows = len(images) - len(added) + started
    soft = SoftLabels(images.labels.copy(), np.ones(len(images)))
    soft.labels[rows] = train.labels[start.take(pa.array(started)).to_numpy().astype(np.int64)]
    soft.noise[rows] = noise.take(pa.array(started)).to_numpy()
    return soft


def _loss_mask(arm: Arm, train: ImageSet, scores: pa.Table) -> NDArray[np.bool_]:
    """Returns which groups count per image, `[n, G]`: with `synthetic.groups: checked`, those whose label is plausible, else all."""
    names = [group.name for group in train.schema.groups]
    if arm.synthetic is None or arm.synthetic.groups == "all" or arm.accept is None:
        return np.ones((scores.num_rows, len(names)), np.bool_)
    if missing := [name for name in names if f"p_{name}" not in scores.column_names]:
        raise DataError(f"scores.parquet: has no column 'p_{missing[0]}'; run `score` again (--rerun score)")
    plausible = [scores[f"p_{name}"].to_numpy() >= arm.accept.plausibility[0] for name in names]
    return np.stack(plausible, axis=1).astype(np.bool_)


def _with_manual_images(train: ImageSet, which: Literal["none", "rare", "all"], rare: NDArray[np.int64]) -> ImageSet:
    if which == "none":
        return train
    copies = train.take(copied_rows(train.labels, which, rare))
    encoded = EncodedImages.of(contrast_and_sharpen(data) for data in copies.encoded)
    paths = [f"manual/{path}" for path in copies.paths]
    return _joined(train, ImageSet(train.schema, encoded, paths, copies.split, copies.labels))


def _joined(first: ImageSet, second: ImageSet) -> ImageSet:
    labels: Labels = np.concatenate([first.labels, second.labels])
    return ImageSet(
        first.schema,
        EncodedImages.of(first.encoded).joined(EncodedImages.of(second.encoded)),
        [*first.paths, *second.paths],
        np.concatenate([first.split, second.split]),
        labels,
    )
