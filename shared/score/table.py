"""Reads the provenance of the generated images that scoring needs, and makes the table of scores that it commits."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shared.data.imageset import ImageSet
from shared.errors import DataError
from shared.score.near_duplicates import Images, NearDuplicates
from shared.score.plausibility import Probabilities, target_probabilities


def check_provenance(generated: ImageSet) -> None:
    """Raises DataError if there are no generated images, or if a column that scoring reads is missing."""
    if len(generated) == 0:
        raise DataError("generate: made no images, so there is nothing to score; check rare: and generate:")
    found = generated.extra.column_names if generated.extra is not None else []
    if missing := [name for name in ("index", "pool", "filled", "start") if name not in found]:
        raise DataError(f"generate: the images have no column {missing[0]!r}; run `generate` again (--rerun generate)")


def is_first_pool(generated: ImageSet) -> bool:
    """Returns whether the images are those of pool 0."""
    assert generated.extra is not None
    return not generated.extra["pool"].to_numpy().any()


def filled_classes(generated: ImageSet) -> list[list[int]]:
    """Returns the columns of the classes that each image was made for: one, or several of a crossing (`group/class & group/class`)."""
    assert generated.extra is not None
    column = generated.schema.column
    return [[column(part.strip()) for part in name.split("&")] for name in generated.extra["filled"].to_pylist()]


def all_filled(generated: ImageSet) -> NDArray[np.int64]:
    """Returns the columns of all classes that images were made for, in order."""
    return np.unique(np.concatenate([np.array(columns) for columns in filled_classes(generated)]))


def started_from(generated: ImageSet) -> NDArray[np.int64]:
    """Returns the training row that each image was made from, `[n]`; -1 if it was made from noise."""
    assert generated.extra is not None
    return np.asarray(pc.fill_null(pc.cast(generated.extra["start"], pa.int64()), -1), np.int64)


def score_table(images: Images, probabilities: Probabilities, found: NearDuplicates) -> pa.Table:
    """Returns the table of `scores.parquet`: a row per generated image, in their order."""
    generated = images.generated
    assert generated.extra is not None
    schema, train = generated.schema, images.train.paths
    groups = target_probabilities(schema, probabilities, generated.labels)
    # the plausibility of a crossing is that of its less plausible class
    plausibility = [row[columns].min() for row, columns in zip(probabilities, filled_classes(generated), strict=True)]
    return pa.table(
        {
            "index": pc.cast(generated.extra["index"], pa.int64()),
            **{f"p_{group.name}": groups[:, i] for i, group in enumerate(schema.groups)},
            "plausibility": np.array(plausibility, np.float32),
            "copy_of": pa.array([train[i] if i >= 0 else None for i in found.copy_of.tolist()], pa.string()),
            "leak_of": pa.array(found.leak_of, pa.string()),
            "neighbour": pa.array([train[i] for i in found.train.index.tolist()], pa.string()),
            "neighbour_ratio": found.train_ratio,
            "as_near": found.as_near,
            "test_neighbour": pa.array([images.test.paths[i] for i in found.test.index.tolist()], pa.string()),
            "test_ratio": found.test_ratio,
            "test_as_near": found.test_as_near,
        }
    )
