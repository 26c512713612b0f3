"""Writes images as a folder of files with a `metadata.jsonl`, which Hugging Face's `imagefolder` reads, and so does our own."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.artifacts.disk import check_empty_folder, disk_errors, whole_file
from shared.errors import DataError
from shared.log import Log
from shared.names import path_below

if TYPE_CHECKING:
    import pyarrow as pa

    from shared.data.imageset import ImageSet

log = Log("export")

METADATA = "metadata.jsonl"
REAL = "__review__"
"""Names the folder of the real images that a review shows. `imagefolder` reads no folder whose name begins with two underscores."""


@dataclass
class ExportFolder:
    """Writes into a folder that was new or empty, and knows what it has written there."""

    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Holds the rows of `metadata.jsonl` so far."""
    _made: set[str] = field(default_factory=set)

    def write(self, name: str, data: bytes) -> None:
        """Writes a file below the folder; raises DataError for a name that leads out of it, and what disk_errors raises."""
        path = path_below(self.path, name, "export", DataError)
        self._made.add(name.partition("/")[0])
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def add_images(self, names: Sequence[str], images: ImageSet, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes each image under its name with the ending `.png` or `.jpg`, and keeps its row for `metadata.jsonl`."""
        named = zip(names, images.paths, images.encoded, rows, strict=True)
        for stem, path, data, row in log.progress(named, "export", total=len(images), unit="images"):
            name = f"{stem}{image_suffix(data, path)}"
            self.write(name, data)
            self.rows.append({"file_name": name, **row})

    def write_metadata(self) -> None:
        """Writes `metadata.jsonl`, last of all, so that a folder with it is complete."""
        self._made.add(METADATA)
        with whole_file(self.path / METADATA, private=False) as path, path.open("w", encoding="utf-8") as file:
            for row in self.rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def remove(self) -> None:
        """Removes what was written."""
        for name in self._made:
            shutil.rmtree(self.path / name, ignore_errors=True)
            (self.path / name).unlink(missing_ok=True)


@contextmanager
def new_folder(out: Path) -> Iterator[ExportFolder]:
    """Yields a new or empty folder to write into, and removes what was written if the block raises: the same command would refuse it else.

    Raises ConfigError if the folder is not empty.
    """
    check_empty_folder(out)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    folder = ExportFolder(out)
    try:
        yield folder
    except BaseException:
        folder.remove()
        raise


def image_rows(images: ImageSet) -> list[dict[str, Any]]:
    """Returns all that is known of each image but its bytes: its path in the data set, its split, labels and provenance, as JSON values."""
    from shared.data.imageset import to_table

    rows = [{"path": path} for path in images.paths]
    for row, values in zip(rows, table_rows(to_table(images).drop_columns(["image"])), strict=True):
        row.update(values)
    return rows


def table_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Returns the rows of a table as JSON values; None for a number that is not finite."""
    return [{name: _json_value(value) for name, value in row.items()} for row in table.to_pylist()]


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def image_suffix(data: bytes, path: str) -> str:
    """Returns the ending of an image file's name; `path` names it in the DataError for a file that is neither PNG nor JPEG."""
    if data.startswith(b"\x89PNG"):
        return ".png"
    if data.startswith(b"\xff\xd8"):
        return ".jpg"
    raise DataError(f"image {path}: is neither PNG nor JPEG; run `prepare` again")
