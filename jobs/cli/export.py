"""Implements `tailfill export`: writes a committed image set as a folder of files with `metadata.jsonl`.

Hugging Face's `imagefolder` reads such a folder.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.disk import check_empty_folder, disk_errors, whole_file
from shared.artifacts.manifest import Manifest
from shared.config.generation import Accept
from shared.config.resolve import ResolvedStudy
from shared.errors import ConfigError, DataError
from shared.log import Log
from shared.names import path_below
from shared.pipeline import status as step_status
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
    """Holds the steps that make an experiment's generated images, and its filter over them."""

    generate: Step
    score: Step | None
    """Holds None if the study takes all images, so that they are not scored."""
    accept: Accept


def generated_images(
    study: ResolvedStudy, steps: Sequence[Step], experiment: str | None, pool: int = 0
) -> GeneratedImages:
    """Returns a pool of the generated images of the named experiment, or of the only ones of the study.

    Raises ConfigError if there are none or several, and if there is no such pool.
    """
    if pool >= study.pools:
        raise ConfigError(f"--pool {pool}: must be below {study.pools}, the number of pools of generated images")
    needs = steps[-1].needs  # the report needs those of every experiment
    by_experiment = {
        e.name: GeneratedImages(needs[f"generate/{e.name}/{pool}"], needs.get(f"score/{e.name}/{pool}"), e.accept)
        for e in study.experiments
        if f"generate/{e.name}/{pool}" in needs
    }
    names = ", ".join(by_experiment) or "none"
    if experiment is not None:
        if experiment not in by_experiment:
            raise ConfigError(f"--experiment {experiment}: has no generated images; experiments that have: {names}")
        return by_experiment[experiment]
    distinct = {
        (images.generate.id, images.score and images.score.id, images.accept): images
        for images in by_experiment.values()
    }
    if len(distinct) != 1:
        raise ConfigError(
            f"study {study.name}: has {len(distinct)} sets of generated images (or filters over them); "
            f"choose one with --experiment NAME: {names}"
            if distinct
            else f"study {study.name}: no experiment has generated images (images: real+synthetic or real+copies)"
        )
    return next(iter(distinct.values()))


def export(
    artifacts: Artifacts,
    prepared: Manifest,
    generated: Manifest | None,
    scored: Manifest | None,
    out: Path,
    accept: Accept | None = None,
) -> str:
    """Writes the prepared data set, or the generated images if given, into a new or empty folder; returns a line that counts them.

    Generated images are written with their provenance, with their scores if `scored` is given, and with `accept` also with whether that filter
    accepts each. Raises ConfigError if `out` is not empty, and UnavailableError if the disk is full.
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
    """Writes `<split>/<row>.png|jpg`, and `metadata.jsonl` with one line per image: file_name, labels, provenance, scores, accepted.

    Returns a line that counts the images. Raises ConfigError if `out` is not empty, DataError if the scores do not fit the images.
    """
    check_empty_folder(out)
    splits = {s: path_below(out, s, "images, column 'split'", DataError) for s in sorted(set(images.split.tolist()))}
    rows = _rows(images, scores, accept)
    try:
        _write(images, rows, out, splits)
    except BaseException:
        for folder in splits.values():  # else the same command would refuse the folder, as it is not empty
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return f"{len(images)} images in {out}"


def _write(images: ImageSet, rows: list[dict[str, Any]], out: Path, splits: Mapping[str, Path]) -> None:
    with disk_errors(out):
        for folder in splits.values():
            folder.mkdir(parents=True)
    names = []
    for row, data in enumerate(log.progress(images.encoded, "export", total=len(images), unit="images")):
        names.append(f"{images.split[row]}/{row:06d}{_suffix(data, images.paths[row])}")
        image = path_below(out, names[-1], "images, column 'split'", DataError)
        with disk_errors(image):
            image.write_bytes(data)
    with whole_file(out / "metadata.jsonl", private=False) as path, path.open("w", encoding="utf-8") as file:
        for name, values in zip(names, rows, strict=True):  # last, so that a folder with it is complete
            file.write(json.dumps({"file_name": name, **values}, ensure_ascii=False) + "\n")


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


def export_images(what: str, out: Path, experiment: str | None, pool: int | None, workdir: Path | None) -> str:
    """Writes the data set, or a pool of the images generated for an experiment, into `out`; returns a line that counts them.

    Raises ConfigError if these images are not committed, or if the experiment is unknown or ambiguous.
    """
    given = {"--experiment": experiment, "--pool": pool}
    if what == "dataset" and (name := next((name for name, value in given.items() if value is not None), None)):
        raise ConfigError(f"{name} {given[name]}: is for `export generated`; a study has one data set")
    check_empty_folder(out)  # before services start and images are fetched
    folder = latest_workdir(workdir)
    with local_session(*last_study(folder), folder, join=True) as local:
        session = local.session
        rows = step_status.states(session.study, session.steps, session.artifacts)
        committed = {row.step.id: row.manifest for row in rows}
        prepare = session.steps[-1].needs["prepare"]
        images = generated_images(session.study, session.steps, experiment, pool or 0) if what == "generated" else None
        step = images.generate if images else prepare
        prepared, manifest = committed[prepare.id], committed[step.id]
        if prepared is None or manifest is None:
            raise ConfigError(
                f"{folder}: nothing is committed of {step.stage}; `tailfill status` shows the study's progress"
            )
        if images is None:
            return export(session.artifacts, prepared, None, None, out)
        scored = committed[images.score.id] if images.score is not None else None
        return export(session.artifacts, prepared, manifest, scored, out, images.accept)
