"""Reads Parquet files with one row per image, as the library `datasets` of Hugging Face writes them.

The images stay in the files: a row group is read when its first image is decoded, so that a set may be larger than memory.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.config.dataset import COLUMNS, GROUP_PATTERN, ColumnGroup, ParquetSource
from shared.data.problems import BadImage, Problems
from shared.data.schema import LabelGroup, Labels, LabelSchema
from shared.data.source import ImageListing, InferredSource, SourceImage, SplitName
from shared.data.sources.class_folders import SPLIT_NAMES
from shared.data.sources.paths import existing_root
from shared.errors import ConfigError, DataError
from shared.names import shown

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SUFFIX = ".parquet"
MOST_CLASSES = 200
ROW_GROUPS = 2  # of one file that are kept in memory: threads decode the end of one and the beginning of the next
UNITS = frozenset({"unit", "patient", "patient_id", "product", "product_id", "subject", "subject_id", "lesion_id"})
NO_LABELS = COLUMNS | {"text", "path", "file_name", "filename", "url", "id", "image_id"}


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
        except (OSError, pa.ArrowException) as error:
            raise BadImage("damaged file", f"{self._path.name} cannot be read ({str(error)[:100]})") from error
        whole = pa.concat_arrays(column.chunks)
        return whole.field("bytes") if pa.types.is_struct(whole.type) else whole


def infer_parquet(data: Path) -> InferredSource | None:
    """Returns the source of a Parquet file, or of a folder that holds some at any depth; None if there is none.

    Raises DataError if no column holds images, or none looks like labels.
    """
    files = [data] if data.is_file() and data.suffix.lower() == SUFFIX else [] if data.is_file() else _files(data)
    if not files:
        return None
    root = (data.parent if data.is_file() else data).resolve()
    table = _open(files[0])
    columns = table.schema_arrow
    image = next((field.name for field in columns if _holds_images(field.type)), None)
    if image is None:
        raise DataError(
            f"{files[0].name}: no column holds images (bytes, or a struct with the field bytes), got {columns.names}"
        )
    others = [field for field in columns if field.name != image and field.name not in NO_LABELS]
    unit = next((field.name for field in columns if field.name.lower() in UNITS), None)
    groups = {
        _group_name(field.name): ColumnGroup(column=field.name, kind="any" if _is_list(field.type) else "one")
        for field in others
        if field.name != unit and _looks_like_labels(table, field)
    }
    if not groups:
        raise DataError(
            f"{files[0].name}: no column looks like labels (class numbers with names, or a few names that repeat), got {columns.names}"
        )
    fields: dict[str, Any] = {"file": data.name} if data.is_file() else {}
    fields |= {"split_column": "split"} if "split" in columns.names else {}
    fields |= {"group_by": unit} if unit else {}
    dataset = ParquetSource(source="parquet", root=str(root), image_column=image, **fields, groups=groups)
    comments = {
        "group_by": "images with an equal value stay in one split"
        if unit
        else "group_by: patient # a column whose equal values must stay in one split",
        "groups": "a label group is `kind: one` class an image, or `any` number of them; delete what is no label",
    }
    return InferredSource(dataset, root, comments)


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
    classes = {name: _classes(name, group, tables) for name, group in config.groups.items()}
    schema = LabelSchema(
        groups=tuple(
            LabelGroup(name=name, kind=group.kind, classes=classes[name]) for name, group in config.groups.items()
        )
    )
    if len({table.split is None for table in tables}) > 1 and config.split_column is None:
        named = [table.name for table in tables if table.split is None]
        raise DataError(f"{root.name}/: {named[0]} names no split, other files do; rename it, or move it away")
    images = [image for table in tables for image in table.images(schema, problems)]
    where = dict.fromkeys(schema.class_names, f"the rows of {tables[0].name}")
    return ImageListing(schema, images, len(images), class_where=where)


@dataclass(frozen=True)
class _Rows:
    """Holds the columns of one file, without its images."""

    config: ParquetSource
    name: str
    split: SplitName | None
    """Names the split if the name of the file does: `train-00000-of-00002.parquet`, `test/0000.parquet`."""
    sizes: list[int]
    """Lists the numbers of rows of the row groups."""
    values: Mapping[str, list[Any]]
    """Maps each column to its values."""
    names: Mapping[str, Sequence[str]]
    """Maps each column of class numbers to the names of the classes."""
    images_column: _ImageColumn

    @classmethod
    def open(cls, config: ParquetSource, path: Path, root: Path) -> _Rows:
        """Reads all columns but the images; raises DataError for a damaged file, and ConfigError for a column that is missing."""
        import pyarrow as pa

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
        try:
            values = file.read(columns=list(dict.fromkeys(wanted.values()))).to_pydict()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{name}: cannot be read ({str(error)[:120]}); fetch it again") from error
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        names = {column: found for column in wanted.values() if (found := _class_names(schema, column))}
        return cls(config, name, _split(name), sizes, values, names, _ImageColumn(path, image))

    def images(self, schema: LabelSchema, problems: Problems) -> Iterator[SourceImage]:
        """Yields the rows; one with a wrong label or split is reported to `problems`."""
        places = [(group, row) for group, size in enumerate(self.sizes) for row in range(size)]
        units = self.values[self.config.group_by] if self.config.group_by else None
        for position, (group, row) in enumerate(places):
            where = f"{self.name} row {position}"
            try:
                labels = np.concatenate([self._labels(name, position, schema) for name in self.config.groups])
                split = self._row_split(position)
            except BadImage as error:
                problems.add(error.reason, where, str(error))
                continue
            unit = None if units is None or units[position] is None else str(units[position])
            content = RowImage(self.images_column, group, row)
            yield SourceImage(f"{self.name}/{position:06d}", where, content, labels, split, unit)

    def classes(self, name: str) -> list[str]:
        """Returns the classes of a group: those that the file names in order, else those that occur, sorted."""
        group = self.config.groups[name]
        if group.column in self.names:
            return list(self.names[group.column])
        return sorted({text for value in self.values[group.column] for text in _texts(group, value)})

    def _labels(self, name: str, position: int, schema: LabelSchema) -> Labels:
        group, classes = self.config.groups[name], schema.group(name).classes
        value = self.values[group.column][position]
        labels = np.full(len(classes), -1, np.int8)
        if value is None or value == -1:  # -1 is what `datasets` writes for a label that is not known
            return labels
        labels[:] = 0
        numbered = self.names.get(group.column)
        for one in value if isinstance(value, list) else [value]:
            text = _text(one)
            if numbered is not None:
                text = numbered[one] if isinstance(one, int) and 0 <= one < len(numbered) else text
            if text not in classes:
                raise BadImage(
                    "label outside its group", f"{group.column} must be one of {list(classes)[:20]}, got {shown(text)}"
                )
            labels[classes.index(text)] = 1
        return labels

    def _row_split(self, position: int) -> SplitName | None:
        if self.config.split_column is None:
            return self.split
        text = str(self.values[self.config.split_column][position]).strip().lower()
        if text not in SPLIT_NAMES:
            raise BadImage("unknown split", f"{self.config.split_column} must be train, val or test, got {shown(text)}")
        return SPLIT_NAMES[text]


def _classes(name: str, group: ColumnGroup, files: Sequence[_Rows]) -> tuple[str, ...]:
    """Returns the classes of a group over all files; raises DataError if they disagree or are too few."""
    named = {tuple(file.classes(name)) for file in files if group.column in file.names}
    if len(named) > 1 or (named and len([f for f in files if group.column in f.names]) < len(files)):
        raise DataError(f"{files[0].name}: the files name different classes in {group.column!r}; they must agree")
    classes = group.classes or (
        named.pop() if named else tuple(sorted({c for file in files for c in file.classes(name)}))
    )
    if len(classes) < (2 if group.kind == "one" else 1):
        raise DataError(
            f"{files[0].name}: the column {group.column!r} holds the classes {list(classes)}; a group needs two"
        )
    if len(set(classes)) < len(classes):
        raise DataError(
            f"{files[0].name}: the column {group.column!r} names a class twice, got {list(classes)[:20]}; each must be named once"
        )
    return classes


def _texts(group: ColumnGroup, value: Any) -> list[str]:
    if value is None:
        return []
    return [_text(one) for one in value] if isinstance(value, list) else [_text(value)]


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob(f"*{SUFFIX}") if path.is_file() and not _hidden(path.relative_to(folder))
    )


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


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
    return next((SPLIT_NAMES[word] for word in reversed(words) if word in SPLIT_NAMES), None)


def _holds_images(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


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


def _looks_like_labels(file: pq.ParquetFile, field: pa.Field) -> bool:
    import pyarrow as pa

    if _class_names(file.schema_arrow, field.name):
        return True
    kind = field.type.value_type if _is_list(field.type) else field.type
    if not (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
    ):
        return False
    try:
        values = file.read(columns=[field.name]).column(0).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"the column {field.name!r} cannot be read ({str(error)[:120]}); fetch the file again"
        ) from error
    texts = [_text(one) for value in values for one in (value if isinstance(value, list) else [value]) if one is not None]
    return 2 <= len(set(texts)) <= min(MOST_CLASSES, len(texts) // 2)


def _group_name(column: str) -> str:
    """Returns the column's name with what a group's name may not have replaced."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", column)[:60]
    return name if re.match(GROUP_PATTERN, name) else f"g{name}"[:60]
