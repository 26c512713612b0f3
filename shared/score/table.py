"""What scoring reads of the generated images' provenance, and the table that it commits: a row an image."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shared.data.imageset import ImageSet
from shared.errors import DataError
from shared.score.judges import Images
from shared.score.near_duplicates import NearDuplicates
from shared.score.plausibility import Probabilities, target_probabilities


def check_provenance(generated: ImageSet) -> None:
    """Raises DataError where there are no generated images, or one of the columns that scoring reads is missing."""
    if len(generated) == 0:
        raise DataError("generate: made no images, so there is nothing to score; look at rare: and generate:")
    found = generated.extra.column_names if generated.extra is not None else []
    if missing := [name for name in ("index", "pool", "filled", "start") if name not in found]:
        raise DataError(f"generate: the images have no column {missing[0]!r}; run `generate` again (--rerun generate)")


def first_pool(generated: ImageSet) -> NDArray[np.int64]:
    """Rows of pool 0: what one training sees."""
    assert generated.extra is not None
    return np.flatnonzero(generated.extra["pool"].to_numpy() == 0)


def filled_classes(generated: ImageSet) -> list[list[int]]:
    """Columns of the classes that each image was made for: one, or those of a crossing (`group/class & group/class`)."""
    assert generated.extra is not None
    column = generated.schema.column
    return [[column(part.strip()) for part in name.split("&")] for name in generated.extra["filled"].to_pylist()]


def all_filled(generated: ImageSet) -> NDArray[np.int64]:
    """Columns of all classes that images were made for, in order."""
    return np.unique(np.concatenate([np.array(columns) for columns in filled_classes(generated)]))


def started_from(generated: ImageSet) -> NDArray[np.int64]:
    """Training row that each image was made from, `[n]`; -1 where it began as noise."""
    assert generated.extra is not None
    return np.asarray(pc.fill_null(pc.cast(generated.extra["start"], pa.int64()), -1), np.int64)


def score_table(images: Images, probabilities: Probabilities, close: NearDuplicates) -> pa.Table:
    """`scores.parquet`: a row a generated image, in their order."""
    generated = images.generated
    assert generated.extra is not None
    schema = generated.schema
    groups = target_probabilities(schema, probabilities, generated.labels)
    # of a crossing the less plausible class decides
    plausibility = [row[columns].min() for row, columns in zip(probabilities, filled_classes(generated), strict=True)]
    return pa.table(
        {
            "index": pc.cast(generated.extra["index"], pa.int64()),
            **{f"p_{group.name}": groups[:, i] for i, group in enumerate(schema.groups)},
            "plausibility": np.array(plausibility, np.float32),
            "neighbour": pa.array([images.train.paths[i] for i in close.train.index], pa.string()),
            "neighbour_ratio": close.train_ratio,
            "test_neighbour": pa.array([images.test.paths[i] for i in close.test.index], pa.string()),
            "test_ratio": close.test_ratio,
        }
    )
