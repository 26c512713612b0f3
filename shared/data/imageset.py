"""Stores image sets as Parquet shards with one row per image.

The columns are `image` (a struct of bytes and path, as Hugging Face `datasets` reads it), `split`, one column per label group (`one`: the
class name, null if unknown; `any`: a struct with 1, 0 or null per class), `unit` if the data set names products, patients and the like, and
for generated images their provenance.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shared.data.encoded import EncodedImages, EncodedWriter
from shared.data.schema import LabelGroup, Labels, LabelSchema
from shared.errors import DataError

ROWS_PER_SHARD = 2048
UNIT = "unit"
NOISE_SHARE = "noise_share"
"""Names the column of generated images with soft labels: the share of noise that was put on the image of another class at their start."""
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(frozen=True)
class ImageSet:
    """Holds n encoded images in order, with labels `[n, C]` and splits `[n]`.

    `extra` holds the remaining columns (`unit`, provenance), one row per image.
    """

    schema: LabelSchema
    encoded: Sequence[bytes]
    """Holds the images, as `EncodedImages` if there may be many."""
    paths: Sequence[str]
    split: NDArray[np.str_]
    labels: Labels
    extra: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.encoded)

    def take(self, rows: NDArray[np.int64]) -> ImageSet:
        """Returns the images at these positions, in this order."""
        return ImageSet(
            self.schema,
            EncodedImages.of(self.encoded).take(rows),
            [self.paths[i] for i in rows],
            self.split[rows],
            self.labels[rows],
            self.extra.take(pa.array(rows)) if self.extra is not None else None,
        )

    def of(self, split: str) -> ImageSet:
        """Returns the images of one split."""
        return self.take(np.flatnonzero(self.split == split))

    def units(self) -> list[str] | None:
        """Returns the name of the product, the patient and the like that each image shows; None if the data set names none.

        An image for which it names none is a unit of its own, named by its path.
        """
        if self.extra is None or UNIT not in self.extra.column_names:
            return None
        names = self.extra[UNIT].to_pylist()
        return [path if name is None else name for name, path in zip(names, self.paths, strict=True)]

    def unit_numbers(self) -> NDArray[np.int64]:
        """Returns a number per image, `[n]`, the same for images of one unit."""
        units = self.units()
        return np.arange(len(self)) if units is None else np.unique(units, return_inverse=True)[1].astype(np.int64)

    def pixels(self, resolution: int) -> NDArray[np.uint8]:
        """Returns all images decoded, `[n, resolution, resolution, 3]`, RGB 0 to 255; see `decode`."""
        out = np.empty((len(self), resolution, resolution, 3), np.uint8)
        for i, data in enumerate(self.encoded):
            out[i] = decode(data, resolution, self.paths[i])
        return out


def unit_column(groups: Sequence[str | None]) -> pa.Table | None:
    """Returns the column `unit` for images of these products, patients and the like; None if no image has one."""
    return pa.table({UNIT: pa.array(groups, pa.string())}) if any(group is not None for group in groups) else None


def decode(data: bytes, resolution: int, name: str) -> NDArray[np.uint8]:
    """Returns one image as `[resolution, resolution, 3]`, RGB 0 to 255; raises DataError that names it if it cannot be decoded."""
    from PIL import Image  # the image of control, which decodes nothing, does not contain it

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
    """Writes `<stem>-00000.parquet` and so on into `folder`; returns the paths in order."""
    paths = []
    for shard, start in enumerate(range(0, max(len(images), 1), ROWS_PER_SHARD)):
        path = folder / f"{stem}-{shard:05d}.parquet"
        table = to_table(images.take(np.arange(start, min(start + ROWS_PER_SHARD, len(images)))))
        # images are compressed already; one row group per shard keeps the bytes the same for the same rows
        pq.write_table(table, path, compression="none", row_group_size=ROWS_PER_SHARD)
        paths.append(path)
    return paths


def read_shards(paths: Sequence[Path], schema: LabelSchema) -> ImageSet:
    """Reads shards in order; raises DataError that names the shard, and the column if one is missing or has the wrong type."""

    def tables() -> Iterator[pa.Table]:
        for path in paths:
            try:
                table = pq.read_table(path)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path.name}: is not a readable Parquet file ({error})") from error
            _check_columns(table, schema, path.name)
            yield table

    return from_tables(tables(), schema)


def to_table(images: ImageSet) -> pa.Table:
    """Returns the whole image set as a table."""
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "image": pa.StructArray.from_arrays(
            [pa.array(list(images.encoded), pa.binary()), pa.array(images.paths, pa.string())], fields=list(IMAGE_TYPE)
        ),
        "split": pa.array(images.split.tolist(), pa.string()),
    }
    for name, where in images.schema.slices().items():
        columns[name] = _group_column(images.labels[:, where], images.schema.group(name))
    if images.extra is not None:
        columns.update(zip(images.extra.column_names, images.extra.columns, strict=True))
    return pa.table(columns)


def from_tables(tables: Iterable[pa.Table], schema: LabelSchema) -> ImageSet:
    """Returns the image set of tables, of which one at a time is in memory; inverts `to_table`."""
    paths: list[str] = []
    rest: list[pa.Table] = []
    with EncodedWriter() as writer:
        for table in tables:
            for data in _image_field(table, "bytes", len(paths)):
                writer.add(data)
            paths += _image_field(table, "path", len(paths))
            rest.append(table.drop_columns(["image"]))
        encoded = writer.finish()
    table = pa.concat_tables(rest)
    labels = np.concatenate([_group_labels(table[group.name], group) for group in schema.groups], axis=1)
    known = {"split", *(group.name for group in schema.groups)}
    extra = [name for name in table.column_names if name not in known]
    return ImageSet(
        schema,
        encoded,
        paths,
        np.asarray(table["split"].to_pylist(), dtype=np.str_),
        labels,
        table.select(extra) if extra else None,
    )


def _image_field(table: pa.Table, name: str, first: int) -> list[Any]:
    """Returns one field of the column `image`, in the order of the rows, of which `first` precede; raises DataError if it is null in one."""
    values: list[Any] = []
    # read chunk by chunk: all images together may exceed the 2 GiB of one Arrow binary array
    for chunk in table["image"].chunks:
        values += chunk.field(name).to_pylist()
    if (row := next((i for i, value in enumerate(values) if value is None), None)) is not None:
        raise DataError(
            f"row {first + row}: column 'image' has no {name}; the data set is damaged, run `prepare` again"
        )
    return values


def _group_column(labels: Labels, group: LabelGroup) -> pa.Array:
    if group.kind == "one":
        index = pa.array(labels.argmax(axis=1).astype(np.int32), mask=~(labels == 1).any(axis=1))
        return pa.DictionaryArray.from_arrays(index, pa.array(group.classes)).cast(pa.string())
    columns = [pa.array(labels[:, i], pa.int8(), mask=labels[:, i] < 0) for i in range(len(group.classes))]
    return pa.StructArray.from_arrays(columns, names=list(group.classes))


def _group_labels(column: pa.ChunkedArray, group: LabelGroup) -> Labels:
    column = column.combine_chunks()
    return _one_labels(column, group) if group.kind == "one" else _any_labels(column, group)


def _one_labels(column: pa.Array, group: LabelGroup) -> Labels:
    """Returns labels `[n, classes]` from class names, which are null if unknown."""
    index = pc.index_in(column, value_set=pa.array(group.classes))
    wrong = pc.and_(index.is_null(), column.is_valid())
    if (row := pc.index(wrong, True).as_py()) >= 0:
        raise DataError(
            f"row {row}: {column[row].as_py()!r} is not a class of the group {group.name}; it has {list(group.classes)}"
        )
    position = index.fill_null(-1).to_numpy(zero_copy_only=False)
    labels: Labels = np.where(position[:, None] < 0, -1, position[:, None] == np.arange(len(group.classes)))
    return labels.astype(np.int8)


def _any_labels(column: pa.Array, group: LabelGroup) -> Labels:
    """Returns labels `[n, classes]` from a struct with 1, 0 or null per class."""
    labels = np.full((len(column), len(group.classes)), -1, np.int8)
    for i, name in enumerate(group.classes):
        values = pc.struct_field(column, name).cast(pa.int8()).fill_null(-1)
        labels[:, i] = values.to_numpy(zero_copy_only=False)
    if (wrong := np.argwhere((labels < -1) | (labels > 1))).size:
        row, i = map(int, wrong[0])
        raise DataError(f"row {row}: {group.name}/{group.classes[i]} must be 0, 1 or null, got {labels[row, i]}")
    return labels


def _check_columns(table: pa.Table, schema: LabelSchema, name: str) -> None:
    for column in ("image", "split", *(group.name for group in schema.groups)):
        if column not in table.column_names:
            raise DataError(f"{name}: has no column {column!r}; it has {table.column_names}")
    wanted = {"image": IMAGE_TYPE, "split": pa.string()}
    wanted |= {group.name: _group_type(group) for group in schema.groups}
    for column, kind in wanted.items():
        found = table.schema.field(column).type
        if found != kind:
            raise DataError(f"{name}: column {column!r} must be {kind}, got {found}; run the stage that made it again")


def _group_type(group: LabelGroup) -> pa.DataType:
    return pa.string() if group.kind == "one" else pa.struct([(name, pa.int8()) for name in group.classes])
