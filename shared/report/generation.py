"""Describes the generated images of a study: how many were accepted, how plausible they are, and how near they are to real images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shared.config.generation import Accept
from shared.data.accept import LEAK, accepted_images, refusals
from shared.data.imageset import ImageSet, read_shards
from shared.data.review import KEEP, REJECT, Review, read_review
from shared.data.schema import class_counts
from shared.errors import DataError
from shared.report.inputs import Experiment, StageResult, StudyInputs


@dataclass(frozen=True)
class GeneratedClass:
    """Counts the images of a filled class."""

    name: str
    real: int
    generated: int
    accepted: int


@dataclass(frozen=True)
class PersonCounts:
    """Counts what a person decided about the images of the first pool."""

    kept: int
    rejected: int
    let_in: int
    """Counts the kept images that their scores refuse, and that are used."""
    taken_out: int
    """Counts the rejected images that their scores accept."""
    leaks: int
    """Counts the kept images that stay refused, as they are copies of validation or test images."""


@dataclass(frozen=True)
class GeneratedSet:
    """Holds one set of generated images, with the experiments that train on it."""

    name: str
    """Names the first experiment that uses it; unique on the page."""
    used_by: list[str]
    images: ImageSet
    """Holds the images of the first pool, which all following fields are about."""
    pools: int
    accept: Accept | None
    accepted: NDArray[np.bool_]
    """Says whether an image was accepted, `[n]`; all are if they were not scored."""
    plausibility: NDArray[np.float64] | None
    neighbours: list[tuple[str, NDArray[np.float64]]]
    """Holds the neighbour ratios among the images of `training` and of `test`."""
    judges: dict[str, Any]
    classes: list[GeneratedClass]
    person: PersonCounts | None
    """Holds None if no person reviewed the images."""
    finetune: StageResult | None
    generate: StageResult
    score: StageResult | None

    def class_counts_of_first_pool(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns the numbers of accepted and of refused images per class in the first pool, `[C]` each."""
        labels = self.images.labels
        return class_counts(labels[self.accepted]), class_counts(labels[~self.accepted])


def read_generated(study: StudyInputs) -> list[GeneratedSet]:
    """Returns the distinct sets of the study (by digest and by what is accepted), in the order of the experiments."""
    found: dict[tuple[str, str, bool], list[Experiment]] = {}
    for experiment in study.experiments:
        if experiment.generate is not None:
            accept = experiment.arm.accept if experiment.arm else None
            scored = experiment.score is not None
            key = (experiment.generate.manifest.digest, accept.model_dump_json() if accept else "", scored)
            found.setdefault(key, []).append(experiment)
    return [_read(study, users) for users in found.values()]


def _read(study: StudyInputs, users: list[Experiment]) -> GeneratedSet:
    first = users[0]
    assert first.generate is not None
    images = read_shards(first.generate.shards("images"), study.schema)
    accept = first.arm.accept if first.arm else None
    accepted = np.ones(len(images), bool)
    scores: pa.Table = first.score.table("scores.parquet") if first.score else None
    if scores is not None and len(scores) != len(images):
        raise DataError(
            f"score/{first.config.name}: {len(scores)} rows for {len(images)} images; run it again (--rerun score)"
        )
    person = None
    if accept is not None and scores is not None:
        review = _review(first)
        accepted = accepted_images(accept, images, scores, review)
        person = None if review is None else _person_counts(review.decisions_of(images), refusals(accept, scores))
    columns = scores.column_names if scores is not None else []
    return GeneratedSet(
        name=first.config.name,
        used_by=[user.config.name for user in users],
        images=images,
        pools=first.pools,
        accept=accept,
        accepted=accepted,
        plausibility=scores["plausibility"].to_numpy().astype(np.float64) if scores is not None else None,
        neighbours=[
            (label, values)
            for label, column in (("training", "neighbour_ratio"), ("test", "test_ratio"))
            if column in columns and len(values := _finite(scores[column].to_numpy()))
        ],
        judges=(first.score.json("judges.json") if first.score else None) or {},
        classes=_classes(study, images, accepted),
        person=person,
        finetune=first.finetune,
        generate=first.generate,
        score=first.score,
    )


def _review(experiment: Experiment) -> Review | None:
    """Returns the review with which the experiment's first repetition was trained, if there is any."""
    files = (final.files.get("reviewed.csv") for final in experiment.finals.values())
    path = next(files, None)
    return None if path is None else read_review(path)


def _person_counts(decided: NDArray[np.int8], refused: NDArray[np.str_]) -> PersonCounts:
    kept, rejected, leaks = decided == KEEP, decided == REJECT, refused == LEAK
    return PersonCounts(
        kept=int(kept.sum()),
        rejected=int(rejected.sum()),
        let_in=int((kept & (refused != "") & ~leaks).sum()),
        taken_out=int((rejected & (refused == "")).sum()),
        leaks=int((kept & leaks).sum()),
    )


def _classes(study: StudyInputs, images: ImageSet, accepted: NDArray[np.bool_]) -> list[GeneratedClass]:
    filled = _extra(images, "filled")
    counts = dict(zip(study.schema.class_names, study.info.train_counts(), strict=True))
    return [
        GeneratedClass(
            name, int(counts.get(name, 0)), int((filled == name).sum()), int((accepted & (filled == name)).sum())
        )
        for name in sorted(set(filled.tolist()))
    ]


def _extra(images: ImageSet, column: str) -> NDArray[Any]:
    if images.extra is None or column not in images.extra.column_names:
        raise DataError(f"generated images: have no column {column!r}; run `generate` again (--rerun generate)")
    return np.array(images.extra[column].to_pylist())


def _finite(values: NDArray[Any]) -> NDArray[np.float64]:
    numbers = values.astype(np.float64)
    return numbers[np.isfinite(numbers)]
