"""`tailfill export`: a committed image set as a folder of files with `metadata.jsonl`, as Hugging Face's imagefolder reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.disk import disk_errors
from shared.artifacts.manifest import Manifest
from shared.config.generation import Accept
from shared.config.resolve import ResolvedStudy
from shared.errors import ConfigError, DataError
from shared.log import Log
from shared.names import path_below
from shared.pipeline import status as status_module
from shared.pipeline.local_session import (
    last_study,
    latest_workdir,
    local_session,
)
from shared.pipeline.plan import Step

if TYPE_CHECKING:
    import pyarrow as pa

    from shared.data.imageset import ImageSet

log = Log("export")


@dataclass(frozen=True)
class GeneratedImages:
    """What an experiment with generated images takes them from."""

    generate: Step
    score: Step
    accept: Accept


def generated_images(study: ResolvedStudy, steps: Sequence[Step], experiment: str | None) -> GeneratedImages:
    """Those of the named experiment, or the only ones of the study; raises ConfigError where there are none, or several."""
    needs = steps[-1].needs  # the report knows every experiment's
    found = {
        e.name: GeneratedImages(needs[f"generate/{e.name}"], needs[f"score/{e.name}"], e.accept)
        for e in study.experiments
        if f"generate/{e.name}" in needs
    }
    names = ", ".join(found) or "none"
    if experiment is not None:
        if experiment not in found:
            raise ConfigError(f"--experiment {experiment}: has no generated images; experiments that have: {names}")
        return found[experiment]
    kinds = {(images.generate.id, images.score.id, images.accept): images for images in found.values()}
    if len(kinds) != 1:
        raise ConfigError(
            f"study {study.name}: has {len(kinds)} sets of generated images (or filters over them); "
            f"choose one with --experiment NAME: {names}"
            if kinds
            else f"study {study.name}: no experiment has generated images (images: real+synthetic or real+copies)"
        )
    return next(iter(kinds.values()))


def export(
    artifacts: Artifacts,
    prepared: Manifest,
    generated: Manifest | None,
    scored: Manifest | None,
    out: Path,
    accept: Accept | None = None,
) -> str:
    """Writes the prepared data set, or the generated images where given, into `out` (new or empty); returns a line that counts them.

    Of generated images the provenance goes along, their scores where `scored` is given, and with `accept` whether that filter lets
    each in. Raises ConfigError where `out` holds something already, UnavailableError where the disk is full.
    """
    from shared.data.dataset import read_info
    from shared.data.imageset import read_shards

    schema = read_info(artifacts.fetch(prepared.file("dataset.json"))).schema_
    source = prepared if generated is None else generated
    shards = sorted((file for file in source.files if file.name.startswith("images-")), key=lambda file: file.name)
    images = read_shards([artifacts.fetch(file) for file in shards], schema)
    scores = None
    if generated is not None and scored is not None:
        import pyarrow.parquet as pq

        scores = pq.read_table(artifacts.fetch(scored.file("scores.parquet")))
    return write_folder(images, out, scores, accept)


def write_folder(images: ImageSet, out: Path, scores: pa.Table | None = None, accept: Accept | None = None) -> str:
    """Writes `<split>/<row>.png|jpg` and `metadata.jsonl`, a line an image: file_name, labels, provenance, scores, accepted."""
    with disk_errors(out):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise ConfigError(f"{out}: holds something already; name a new or an empty folder")
        for split in sorted(set(images.split.tolist())):
            path_below(out, split, "images, column 'split'", DataError).mkdir(parents=True)
    rows = _rows(images, scores, accept)
    names = []
    for row, data in enumerate(log.progress(images.encoded, "export", total=len(images), unit="images")):
        names.append(f"{images.split[row]}/{row:06d}{_suffix(data, images.paths[row])}")
        place = path_below(out, names[-1], "images, column 'split'", DataError)
        with disk_errors(place):
            place.write_bytes(data)
    path = out / "metadata.jsonl"
    with disk_errors(path), path.open("w", encoding="utf-8") as file:  # last: a folder with it is whole
        for name, values in zip(names, rows, strict=True):
            file.write(json.dumps({"file_name": name, **values}, ensure_ascii=False) + "\n")
    return f"{len(images)} images in {out}"


def _rows(images: ImageSet, scores: pa.Table | None, accept: Accept | None) -> list[dict[str, Any]]:
    from shared.data.imageset import to_table

    rows: list[dict[str, Any]] = [{"path": path} for path in images.paths]
    tables = [to_table(images).drop_columns(["image"])]
    if scores is not None:
        if scores.num_rows != len(images):
            raise DataError(f"scores.parquet: has {scores.num_rows} rows for {len(images)} images; run `score` again")
        tables.append(scores.drop_columns([name for name in ("index",) if name in scores.column_names]))
    for table in tables:
        for row, values in zip(rows, table.to_pylist(), strict=True):
            row.update({name: _json_value(value) for name, value in values.items()})
    if scores is not None and accept is not None:
        from shared.data.accept import accepted_images

        for row, accepted in zip(rows, accepted_images(accept, images, scores).tolist(), strict=True):
            row["accepted"] = accepted
    return rows


def _json_value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _suffix(data: bytes, path: str) -> str:
    if data.startswith(b"\x89PNG"):
        return ".png"
    if data.startswith(b"\xff\xd8"):
        return ".jpg"
    raise DataError(f"image {path}: is neither PNG nor JPEG; run `prepare` again")


def export_images(what: str, out: Path, experiment: str | None, workdir: Path | None) -> str:
    """Writes the data set, or the images generated for an experiment, into `out`; returns a line that counts them."""
    if what == "dataset" and experiment is not None:
        raise ConfigError(f"--experiment {experiment}: goes with `export generated`; the data set is one for all")
    folder = latest_workdir(workdir)
    with local_session(*last_study(folder), folder, look=True) as local:
        session = local.session
        rows = status_module.states(session.study, session.steps, session.artifacts)
        committed = {row.step.id: row.manifest for row in rows}
        prepare = session.steps[-1].needs["prepare"]
        images = generated_images(session.study, session.steps, experiment) if what == "generated" else None
        asked = images.generate if images else prepare
        prepared, made = committed[prepare.id], committed[asked.id]
        if prepared is None or made is None:
            raise ConfigError(
                f"{folder}: nothing is committed of {asked.stage}; `tailfill status` says where the study stands"
            )
        if images is None:
            return export(session.artifacts, prepared, None, None, out)
        return export(session.artifacts, prepared, made, committed[images.score.id], out, images.accept)
