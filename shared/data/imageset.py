"""An image set as it travels: Parquet shards, one row an image.

Columns: `image` (struct of bytes and path, as Hugging Face `datasets` reads it), `split`, one column a label group (`one`: the class
name, null where unknown; `any`: a struct with 1, 0 or null a class), and for generated images their provenance.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from shared.data.schema import LabelGroup, Labels, LabelSchema
from shared.errors import DataError

ROWS_A_SHARD = 2048
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(frozen=True)
class ImageSet:
    """Encoded images with labels, in order. `extra` holds the remaining columns (provenance), a row an image."""

    schema: LabelSchema
    encoded: Sequence[bytes]
    paths: Sequence[str]
    split: NDArray[np.str_]
    labels: Labels
    extra: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.encoded)

    def take(self, rows: NDArray[np.int64]) -> ImageSet:
        """The images at these positions, in this order."""
        return ImageSet(
            self.schema,
            [self.encoded[i] for i in rows],
            [self.paths[i] for i in rows],
            self.split[rows],
            self.labels[rows],
            self.extra.take(pa.array(rows)) if self.extra is not None else None,
        )

    def of(self, split: str) -> ImageSet:
        """The images of one split."""
        return self.take(np.flatnonzero(self.split == split))

    def pixels(self, resolution: int) -> NDArray[np.uint8]:
        """All images decoded, `[n, resolution, resolution, 3]`, RGB 0 to 255; area-averaged when made smaller."""
        out = np.empty((len(self), resolution, resolution, 3), np.uint8)
        for i, data in enumerate(self.encoded):
            out[i] = decode(data, resolution, self.paths[i])
        return out


def decode(data: bytes, resolution: int, name: str) -> NDArray[np.uint8]:
    """One image, `[resolution, resolution, 3]` RGB; raises DataError that names it where it cannot be read."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            rgb = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"image {name}: cannot be decoded ({error}); the data set is damaged, run `prepare` again"
        ) from error
    if rgb.size != (resolution, resolution):
        rgb = rgb.resize((resolution, resolution), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(rgb)


def write_shards(images: ImageSet, folder: Path, stem: str) -> list[Path]:
    """Writes `<stem>-00000.parquet` and so on into `folder`, and returns the paths in order."""
    table = to_table(images)
    paths = []
    for shard, start in enumerate(range(0, max(len(images), 1), ROWS_A_SHARD)):
        path = folder / f"{stem}-{shard:05d}.parquet"
        # images are compressed already; one row group a shard keeps the bytes the same for the same rows
        pq.write_table(table.slice(start, ROWS_A_SHARD), path, compression="none", row_group_size=ROWS_A_SHARD)
        paths.append(path)
    return paths


def read_shards(paths: Sequence[Path], schema: LabelSchema) -> ImageSet:
    """Reads shards in order; raises DataError that names the shard and the column where one is missing or of a wrong type."""
    tables = []
    for path in paths:
        try:
            tables.append(pq.read_table(path))
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path.name}: not a readable Parquet file ({error})") from error
        _check_columns(tables[-1], schema, path.name)
    return from_table(pa.concat_tables(tables), schema)


def to_table(images: ImageSet) -> pa.Table:
    """The Parquet form, whole."""
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "image": pa.array(
            [{"bytes": b, "path": p} for b, p in zip(images.encoded, images.paths, strict=True)], IMAGE_TYPE
        ),
        "split": pa.array(images.split.tolist(), pa.string()),
    }
    for name, where in images.schema.slices().items():
        columns[name] = _group_column(images.labels[:, where], images.schema.group(name))
    if images.extra is not None:
        columns.update(zip(images.extra.column_names, images.extra.columns, strict=True))
    return pa.table(columns)


def from_table(table: pa.Table, schema: LabelSchema) -> ImageSet:
    """The inverse of to_table."""
    image = table["image"].combine_chunks()
    labels = np.concatenate([_group_labels(table[group.name], group) for group in schema.groups], axis=1)
    known = {"image", "split", *(group.name for group in schema.groups)}
    rest = [name for name in table.column_names if name not in known]
    return ImageSet(
        schema,
        image.field("bytes").to_pylist(),
        image.field("path").to_pylist(),
        np.asarray(table["split"].to_pylist(), dtype=np.str_),
        labels,
        table.select(rest) if rest else None,
    )


def _group_column(labels: Labels, group: LabelGroup) -> pa.Array:
    if group.kind == "one":
        names = [group.classes[row.argmax()] if (row == 1).any() else None for row in labels]
        return pa.array(names, pa.string())
    rows = [{name: None if v < 0 else int(v) for name, v in zip(group.classes, row, strict=True)} for row in labels]
    return pa.array(rows, pa.struct([(name, pa.int8()) for name in group.classes]))


def _group_labels(column: pa.ChunkedArray, group: LabelGroup) -> Labels:
    labels = np.full((len(column), len(group.classes)), -1, np.int8)
    index = {name: i for i, name in enumerate(group.classes)}
    for row, value in enumerate(column.to_pylist()):
        if value is None:
            continue
        if group.kind == "one":
            if value not in index:
                raise DataError(
                    f"row {row}: {value!r} is no class of the group {group.name}; it has {list(group.classes)}"
                )
            labels[row] = 0
            labels[row, index[value]] = 1
        else:
            labels[row] = [-1 if value[name] is None else value[name] for name in group.classes]
    return labels


def _check_columns(table: pa.Table, schema: LabelSchema, name: str) -> None:
    for column in ("image", "split", *(group.name for group in schema.groups)):
        if column not in table.column_names:
            raise DataError(f"{name}: has no column {column!r}; it has {table.column_names}")
    if table.schema.field("image").type != IMAGE_TYPE:
        raise DataError(f"{name}: column 'image' must be {IMAGE_TYPE}, got {table.schema.field('image').type}")
