"""Writes data sets as Parquet files, as the library `datasets` does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write_parquet(path: Path, images: Sequence[bytes], labels: Sequence[int], classes: Sequence[str]) -> None:
    """Writes encoded images with the numbers of their classes, whose names are in the file's description."""
    rows = [{"bytes": content, "path": f"{number}.png"} for number, content in enumerate(images)]
    features = {"image": {"_type": "Image"}, "label": {"names": list(classes), "_type": "ClassLabel"}}
    table = pa.table({"image": rows, "label": pa.array(labels, pa.int64())})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
