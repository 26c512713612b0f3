"""Invents the committed files of a whole small study, as its stages write them, for tests of what is logged of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from shared.pipeline.plan import Step

TRIALS = 3
EPOCHS = 4


def picture(side: int = 8, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((side, side + 2, 3), 120, np.uint8)).save(out, kind)
    return out.getvalue()


def trials_table(path: Path) -> Path:
    rows: list[dict[str, Any]] = [
        {
            "step": "", "number": number, "repetition": None, "state": "failed" if number == 2 else "complete",
            "failure": "ValueError: no" if number == 2 else None, "started": "2026-11-24T08:00:00", "seconds": 3.0,
            "training.lr": 0.001 * (number + 1), "training.dropout": 0.1, "value": None if number == 2 else 0.5 + number / 10,
            "curve": [] if number == 2 else [0.1 * epoch for epoch in range(EPOCHS)],
        }
        for number in range(TRIALS)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def files_of(step: Step) -> dict[str, Path]:
    """Returns the files that a step commits, which lie in a folder of its own below the current one."""
    folder = Path("made") / step.label.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, bytes] = {}
    if step.stage == "final":
        curve = [{"epoch": e, "val_loss": 1 / (1 + e), "val_macro_f1": 0.1 * e, "lr": 0.001} for e in range(EPOCHS)]
        metrics = {"accuracy": 0.75, "macro_f1": None, "classes": {"fabric/knit: a*b": {"f1": 0.5}}}
        contents = {"metrics.json": json.dumps(metrics).encode(), "curve.json": json.dumps(curve).encode()}
    elif step.stage == "finetune":
        points = [{"step": s, "loss": 1 / (1 + s), "seconds": float(s)} for s in range(0, 50, 10)]
        contents = {"curve.json": json.dumps(points).encode(), "samples.png": picture()}
    elif step.stage == "generate":
        kinds = ["PNG", "JPEG"] * 20
        images = [{"bytes": picture(8 + n, kind), "path": f"generated/{n}.png"} for n, kind in enumerate(kinds)]
        pq.write_table(pa.table({"image": images}), folder / "images-00000.parquet")
        return {"images-00000.parquet": folder / "images-00000.parquet"}
    elif step.stage == "score":
        contents = {
            "judges.json": json.dumps({"kid": 0.01, "accuracy": {"fabric": 0.8}}).encode(),
            "copies.png": picture(),
        }
    elif step.stage == "tune":
        contents = {"best.json": b'{"value": 0.6}', "importance.json": b'{"training.lr": 0.7, "training.dropout": 0.3}'}
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        return {name: folder / name for name in contents} | {"trials.parquet": trials_table(folder / "trials.parquet")}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}
