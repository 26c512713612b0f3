"""Reads folders of images with a `metadata.jsonl` or `metadata.csv` in each, as Hugging Face's `imagefolder` and `tailfill export` have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.config.dataset import ImagefolderSource
from shared.data.problems import BadImage, Problems
from shared.data.schema import LabelSchema
from shared.data.source import ImageListing, InferredSource, SourceImage, SplitName
from shared.data.sources.columns import Columns, infer_groups, label_schema, why_none
from shared.data.sources.csv_file import read_table
from shared.data.sources.infer_labels import column_comments, split_column, unit_column
from shared.data.sources.label_cells import bracketed, holds_brackets, is_missing
from shared.data.sources.members import is_data
from shared.data.sources.paths import PathCheck, existing_root
from shared.data.sources.split_words import split_of
from shared.data.sources.text_file import parse_json, read_text_file
from shared.errors import ConfigError, DataError

METADATA = ("metadata.jsonl", "metadata.csv")
FILE_NAME = "file_name"
"""Names the column with the path of the image, relative to the folder of the metadata file."""
MOST_BYTES = 1 << 30  # of one metadata file


@dataclass(frozen=True)
class _Metadata:
    """Holds the rows of one metadata file."""

    folder: Path
    """Gives the folder of the file, relative to the root."""
    lines: list[int]
    """Lists the line of each row."""
    columns: Columns


def infer_imagefolder(data: Path) -> InferredSource | None:
    """Returns the source of a folder with metadata files in it or below; None if it has none, or if they name no images or no labels.

    Without labels in the metadata, the folders' names are the labels, and a table that names images in another way is a CSV as any other. Raises
    DataError if a file cannot be read, or if it names images and no labels and no folders may be classes.
    """
    if not data.is_dir() or not _files(data):
        return None
    root = data.resolve()
    files = [_read(file, root, Problems("skip")) for file in _files(root)]
    everything = _joined(files)
    columns = everything.values
    divided_by, unit = split_column(columns, columns.__getitem__), unit_column(columns, columns.__getitem__)
    groups = infer_groups(everything, {divided_by, unit}) if FILE_NAME in columns else {}
    if not groups:
        why = why_none(everything, {divided_by, unit}) if FILE_NAME in columns else ""
        if why and len(_folders_of_images(files)) < 2:
            raise DataError(f"{everything.name}: no key looks like labels (a few names that repeat){why}")
        return None
    fields = {name: column for name, column in (("split_column", divided_by), ("group_by", unit)) if column}
    dataset = ImagefolderSource.model_validate({"source": "imagefolder", "root": str(root), **fields, "groups": groups})
    return InferredSource(dataset, root, column_comments(unit))


def read_imagefolder(config: ImagefolderSource, root: Path, problems: Problems) -> ImageListing:
    """Lists the images that the rows of all metadata files name.

    Raises DataError if there is no metadata file or one cannot be read, and ConfigError if a column that the study names is in none.
    """
    root = existing_root(root)
    files = [_read(file, root, problems) for file in _files(root)]
    if not files:
        raise DataError(f"{root.name}/: holds no {' or '.join(METADATA)}; there must be one beside the images")
    for file in files:
        if FILE_NAME not in file.columns.values:
            keys = list(file.columns.values)[:20]
            raise DataError(f"{file.columns.name}: no row has the key {FILE_NAME!r}, which names the image; got {keys}")
    wanted = {f"groups.{name}.column": group.column for name, group in config.groups.items()}
    wanted |= {"split_column": config.split_column} if config.split_column else {}
    wanted |= {"group_by": config.group_by} if config.group_by else {}
    for file in files:
        for setting, column in wanted.items():
            if column not in file.columns.values:
                raise ConfigError(
                    f"dataset.{setting}: {file.columns.name} has no key {column!r}; it has {list(file.columns.values)}"
                )
    schema = label_schema(config.groups, [file.columns for file in files])
    paths = PathCheck(root, problems)
    images = [image for file in files for image in _images(config, file, schema, paths, problems)]
    if config.split_column is None and len({image.split is None for image in images}) > 1:
        alone = next(image for image in images if image.split is None)
        raise DataError(f"{alone.where}: {alone.path} is in no split's folder, other images are; move it into one")
    where = dict.fromkeys(schema.class_names, files[0].columns.name)
    return ImageListing(schema, images, len(images), class_where=where)


def _images(
    config: ImagefolderSource, file: _Metadata, schema: LabelSchema, paths: PathCheck, problems: Problems
) -> Iterator[SourceImage]:
    columns = file.columns
    for row, line in enumerate(file.lines):
        where = f"{columns.name} line {line}"
        named = columns.values[FILE_NAME][row]
        if not isinstance(named, str):
            problems.add("no path", where, f"{FILE_NAME} must name an image, got {named!r:.60}")
            continue
        checked = paths.check((file.folder / named).as_posix(), where)
        if checked is None:
            continue
        try:
            labels = columns.labels(config.groups, schema, row)
            split = columns.split(config.split_column, row) if config.split_column else _split(checked[0])
        except BadImage as error:
            problems.add(error.reason, where, str(error))
            continue
        unit = columns.unit(config.group_by, row) if config.group_by else None
        yield SourceImage(checked[0], where, checked[1], labels, split, unit)


def _split(path: str) -> SplitName | None:
    """Returns the split that a folder of the path names, the outermost first."""
    return next((split for part in path.split("/")[:-1] if (split := split_of(part)) is not None), None)


def _files(root: Path) -> list[Path]:
    """Returns the metadata files, in the order of their folders; of two in one folder the first kind counts."""
    found = {path.parent: path for name in reversed(METADATA) for path in root.rglob(name) if _is_member(path, root)}
    return [found[folder] for folder in sorted(found)]


def _is_member(path: Path, root: Path) -> bool:
    return path.is_file() and is_data(path.relative_to(root).as_posix())


def _read(path: Path, root: Path, problems: Problems) -> _Metadata:
    name = path.relative_to(root).as_posix()
    if path.suffix == ".csv":
        table = read_table(path, problems)
        rows: list[tuple[int, Mapping[str, Any]]] = list(_listed([(row.line, row.cells) for row in table.rows]))
    else:
        rows = list(_json_lines(path, name, problems))
    keys = list(dict.fromkeys(key for _, row in rows for key in row))
    values = {key: [row.get(key) for _, row in rows] for key in keys}
    return _Metadata(path.parent.relative_to(root), [line for line, _ in rows], Columns(name, values, {}))


def _listed(rows: list[tuple[int, dict[str, str]]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields the rows of a CSV file; the cells of a column of lists in brackets become lists, a name alone one of itself, and a blank cell None."""
    columns = dict.fromkeys(column for _, cells in rows for column in cells)
    lists = [column for column in columns if holds_brackets(cells.get(column, "") for _, cells in rows)]
    for line, cells in rows:
        yield line, cells | {column: _list(cells.get(column, "")) for column in lists}


def _list(cell: str) -> list[str] | None:
    names = bracketed(cell)
    return names if names is not None else None if is_missing(cell) else [cell]


def _json_lines(path: Path, name: str, problems: Problems) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(read_text_file(path, name, MOST_BYTES).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            problems.add("not JSON", f"{name} line {number}", f"must be a JSON object ({str(error)[:80]})")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            problems.add("not JSON", f"{name} line {number}", f"must be a JSON object, got {line.strip()[:60]!r}")


def _folders_of_images(files: list[_Metadata]) -> set[str]:
    """Returns the names of the folders of images that may be classes, as they say no split."""
    named = [(file.folder, name) for file in files for name in file.columns.values.get(FILE_NAME, ())]
    folders = {(folder / name).parent.name for folder, name in named if isinstance(name, str)}
    return {folder for folder in folders if split_of(folder) is None}


def _joined(files: list[_Metadata]) -> Columns:
    """Returns the rows of all files as if they were in one."""
    keys = list(dict.fromkeys(key for file in files for key in file.columns.values))
    values = {
        key: [value for file in files for value in file.columns.values.get(key, [None] * len(file.lines))]
        for key in keys
    }
    return Columns(files[0].columns.name, values, {})
