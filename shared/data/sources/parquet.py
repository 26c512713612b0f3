"""Reads Parquet files with one row per image, as the library `datasets` of Hugging Face writes them.

The images stay in the files: a row group is read when its first image is decoded, so that a set may be larger than memory.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.config.dataset import ParquetSource
from shared.data.problems import BadImage, Problems
from shared.data.schema import LabelSchema
from shared.data.source import ImageListing, InferredSource, SourceImage, SplitName
from shared.data.sources.columns import Columns, infer_groups, label_schema, why_none, without_unused
from shared.data.sources.infer_labels import column_comments, split_column, unit_column
from shared.data.sources.members import is_data
from shared.data.sources.paths import existing_root
from shared.data.sources.split_words import SPLIT_WORDS
from shared.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SUFFIX = ".parquet"
ROW_GROUPS = 2  # of one file that are kept in memory: threads decode the end of one and the beginning of the next


@dataclass(frozen=True)
class RowImage:
    """Reads the encoded image of one row when it is asked for."""

    file: _ImageColumn
    group: int
    row: int

    def read(self) -> bytes:
        """Returns the bytes; raises BadImage if the row holds none."""
        return self.file.read(self.group, self.row)


class _ImageColumn:
    """Reads the images of one file, a row group at a time. Several threads may read at once."""

    def __init__(self, path: Path, column: str) -> None:
        self._path, self._column = path, column
        self._lock = threading.Lock()
        self._loaded: dict[int, pa.Array] = {}

    def read(self, group: int, row: int) -> bytes:
        with self._lock:
            if group not in self._loaded:
                while len(self._loaded) >= ROW_GROUPS:
                    del self._loaded[next(iter(self._loaded))]
                self._loaded[group] = self._load(group)
            column = self._loaded[group]
        data = column[row].as_py()
        if not data:
            raise BadImage("no image", "its row holds no bytes of an image")
        return bytes(data)

    def _load(self, group: int) -> pa.Array:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            column = pq.ParquetFile(self._path).read_row_group(group, columns=[self._column]).column(0)
            whole = pa.concat_arrays(column.chunks)
        except (OSError, pa.ArrowException) as error:
            raise BadImage("damaged file", f"{self._path.name} cannot be read ({str(error)[:100]})") from error
        return whole.field("bytes") if pa.types.is_struct(whole.type) else whole


def infer_parquet(data: Path) -> InferredSource | None:
    """Returns the source of a Parquet file, or of a folder that holds some with images at any depth; None if there is none.

    Raises DataError if a file cannot be read or has no images, or if no column looks like labels.
    """
    files = [data] if data.is_file() and data.suffix.lower() == SUFFIX else [] if data.is_file() else _files(data)
    if not files:
        return None
    root = (data.parent if data.is_file() else data).resolve()
    tables = [(file, _open(file)) for file in files]
    holding = [(file, table) for file, table in tables if _image_column(table)]
    if not holding and data.is_dir():
        return None  # tables of something else, beside the images
    if not holding:
        names = tables[0][1].schema_arrow.names
        raise DataError(f"{data.name}: no column holds images (bytes, or a struct with the field bytes), got {names}")
    file, table = holding[0]
    image, names = _image_column(table), table.schema_arrow.names
    columns = _columns(table, [name for name in names if name != image], file.name)
    divided_by = split_column(columns.values, columns.values.__getitem__)
    unit = unit_column(columns.values, columns.values.__getitem__)
    groups = infer_groups(columns, {divided_by, unit})
    if not groups:
        raise DataError(
            f"{file.name}: no column looks like labels (class numbers with names, or a few names that repeat), got {names}"
            f"{why_none(columns, {divided_by, unit})}"
        )
    labels = [group.column for group in groups.values()]
    whole = [(path, each) for path, each in holding if set(labels) <= set(each.schema_arrow.names)]
    groups, notes = without_unused(groups, [_columns(each, labels, path.name) for path, each in whole])
    fields = {"file": data.name if data.is_file() else None, "split_column": divided_by, "group_by": unit}
    dataset = ParquetSource.model_validate({
        "source": "parquet", "root": str(root), "image_column": image, **{k: v for k, v in fields.items() if v}, "groups": groups,
    })  # fmt: skip
    return InferredSource(dataset, root, column_comments(unit), tuple(notes))


def _image_column(file: pq.ParquetFile) -> str | None:
    return next((field.name for field in file.schema_arrow if _holds_images(field.type)), None)


def read_parquet(config: ParquetSource, root: Path, problems: Problems) -> ImageListing:
    """Lists the rows of all files, in the order of their names; the images are read later.

    Raises DataError if a file cannot be read, and ConfigError if it lacks a column that the study names.
    """
    root = existing_root(root)
    files = [file for file in _files(root) if config.file is None or file.relative_to(root).as_posix() == config.file]
    if not files:
        raise DataError(
            f"{root.name}/: holds no {config.file or 'Parquet file'}; name the folder with --set dataset.root=DIR"
        )
    tables = [_Rows.open(config, file, root) for file in files]
    schema = label_schema(config.groups, [table.columns for table in tables])
    if len({table.split is None for table in tables}) > 1 and config.split_column is None:
        named = [table.name for table in tables if table.split is None]
        raise DataError(f"{root.name}/: {named[0]} names no split, other files do; rename it, or move it away")
    images = [image for table in tables for image in table.images(schema, problems)]
    where = dict.fromkeys(schema.class_names, f"the rows of {tables[0].name}")
    return ImageListing(schema, images, len(images), class_where=where)


@dataclass(frozen=True)
class _Rows:
    """Holds the rows of one file, without their images."""

    config: ParquetSource
    name: str
    split: SplitName | None
    """Names the split if the name of the file does: `train-00000-of-00002.parquet`, `test/0000.parquet`."""
    sizes: list[int]
    """Lists the numbers of rows of the row groups."""
    columns: Columns
    images_column: _ImageColumn

    @classmethod
    def open(cls, config: ParquetSource, path: Path, root: Path) -> _Rows:
        """Reads all columns but the images; raises DataError for a damaged file, and ConfigError for a column that is missing."""
        file, name = _open(path), path.relative_to(root).as_posix()
        schema, image = file.schema_arrow, config.image_column
        wanted = {f"groups.{group}.column": section.column for group, section in config.groups.items()}
        wanted |= {"split_column": config.split_column} if config.split_column else {}
        wanted |= {"group_by": config.group_by} if config.group_by else {}
        for setting, column in {"image_column": image, **wanted}.items():
            if column not in schema.names:
                raise ConfigError(f"dataset.{setting}: {name} has no column {column!r}; it has {schema.names}")
        if not _holds_images(schema.field(image).type):
            kind = schema.field(image).type
            raise ConfigError(
                f"dataset.image_column: {image!r} of {name} must hold bytes, or a struct with the field bytes, got {kind}"
            )
        columns = _columns(file, list(dict.fromkeys(wanted.values())), name)
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        return cls(config, name, _split(name), sizes, columns, _ImageColumn(path, image))

    def images(self, schema: LabelSchema, problems: Problems) -> Iterator[SourceImage]:
        """Yields the rows; one with a wrong label or split is reported to `problems`."""
        config = self.config
        places = [(group, row) for group, size in enumerate(self.sizes) for row in range(size)]
        for position, (group, row) in enumerate(places):
            where = f"{self.name} row {position}"
            try:
                labels = self.columns.labels(config.groups, schema, position)
                split = self.columns.split(config.split_column, position) if config.split_column else self.split
            except BadImage as error:
                problems.add(error.reason, where, str(error))
                continue
            unit = self.columns.unit(config.group_by, position) if config.group_by else None
            yield SourceImage(
                f"{self.name}/{position:06d}", where, RowImage(self.images_column, group, row), labels, split, unit
            )


def _columns(file: pq.ParquetFile, columns: list[str], name: str) -> Columns:
    import pyarrow as pa

    schema = file.schema_arrow
    plain = [column for column in columns if not _has_bytes(schema.field(column).type)]
    try:
        values = file.read(columns=plain).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{name}: cannot be read ({str(error)[:120]}); fetch it again") from error
    return Columns(name, values, {column: found for column in plain if (found := _class_names(schema, column))})


def _has_bytes(kind: pa.DataType) -> bool:
    return _is_bytes(kind) or any(_has_bytes(kind.field(i).type) for i in range(kind.num_fields))


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix.lower() == SUFFIX and path.is_file())
    return sorted(path for path in found if is_data(path.relative_to(folder).as_posix()))


def _open(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path.name}: cannot be read as a Parquet file ({str(error)[:120]}); fetch it again"
        ) from error


def _split(name: str) -> SplitName | None:
    """Returns the split that a word of the file's path names, the word nearest to its end first."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    return next((SPLIT_WORDS[word] for word in reversed(words) if word in SPLIT_WORDS), None)


def _holds_images(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: pa.Schema, column: str) -> list[str]:
    """Returns the class names that `datasets` keeps in the file's metadata for a column of class numbers, or none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        feature = features[column]
        feature = feature.get("feature", feature)  # that of a list
        names = feature["names"] if feature.get("_type") == "ClassLabel" else []
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []
