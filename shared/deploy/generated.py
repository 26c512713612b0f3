"""Writes the generated images of an experiment with their provenance, their scores and what was decided about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.manifest import Manifest
from shared.config.generation import Accept
from shared.data.accept import accepted_images, refusals
from shared.data.imageset import NOISE_SHARE, ImageSet, read_shards
from shared.data.review import DECISIONS, Review, image_ids
from shared.deploy.image_folder import ExportFolder, image_rows, table_rows
from shared.errors import DataError
from shared.names import shown
from shared.weights.roles import BASE

WORDS = {decision: word for word, decision in DECISIONS.items()}


@dataclass(frozen=True)
class Pool:
    """Holds the committed results of a pool of generated images."""

    number: int
    finetune: Manifest
    generate: Manifest
    score: Manifest | None
    """Holds None if the images are not scored: the experiment takes them all, or it has not come to that yet."""
    base: str | None
    """Names the base of the generator as the study does; None if it has none."""
    few_step: str | None = None
    """Names the LoRA with which the images were drawn in few steps, as the study does; None if there is none."""


@dataclass(frozen=True)
class Selection:
    """Says which images an experiment accepts."""

    accept: Accept
    review: Review | None
    """Holds the review that `accept.reviewed` names."""
    only_accepted: bool
    """Says whether the other images are left out of the export."""


@dataclass
class Counts:
    """Counts the images that were made."""

    pools: Counter[int] = field(default_factory=Counter)
    """Counts them by the number of their pool."""
    made: Counter[str] = field(default_factory=Counter)
    """Counts all of them by the class that they fill."""
    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    """Counts those that are not accepted by the reason."""
    decided: Counter[str] = field(default_factory=Counter)
    """Counts what a person decided, `keep` and `reject`."""
    unknown: int = 0
    """Counts the images of which it is not known yet whether they are accepted, as they are not scored."""

    def add(self, filled: Sequence[str], facts: Sequence[Mapping[str, Any]]) -> None:
        """Counts the images of a pool, of which `filled` names the classes that they fill."""
        for name, fact in zip(filled, facts, strict=True):
            self.made[name] += 1
            self.accepted[name] += bool(fact["accepted"])
            self.unknown += fact["accepted"] is None
            if fact["refused"] is not None:
                self.refused[fact["refused"]] += 1
            if fact.get("reviewed") is not None:
                self.decided[fact["reviewed"]] += 1


@dataclass(frozen=True)
class WrittenImage:
    """Holds what is known of an image of the export."""

    file: str
    """Names its file below the folder."""
    filled: str
    labels: list[str]
    """Lists the classes that it has, as `group/class`."""
    facts: Mapping[str, Any]
    """Holds what `image_facts` says of it."""


REJECTED = "rejected by a person"


def write_pools(
    artifacts: Artifacts,
    pools: Sequence[Pool],
    trains: Mapping[int, ImageSet],
    selection: Selection,
    folder: ExportFolder,
) -> tuple[list[WrittenImage], Counts]:
    """Writes the images of all pools, one pool after the other, as `pool-<number>/<index>.png|jpg`, and returns these, and counts of all images.

    `trains` maps the number of each pool to its training split, from whose images they have their labels. Raises DataError if scores or a review do
    not fit the images.
    """
    counts, written = Counts(), list[WrittenImage]()
    for pool in pools:
        train = trains[pool.number]
        classes = np.array(train.schema.class_names)
        images = read_shards([artifacts.fetch(file) for file in pool.generate.shards("images")], train.schema)
        scores = None
        if pool.score is not None:
            scores = pq.read_table(artifacts.fetch(pool.score.file("scores.parquet")))
        facts = image_facts(pool, images, scores, train, selection)
        filled = _provenance(images, "filled")
        counts.pools[pool.number] = len(images)
        counts.add(filled, facts)
        kept = [i for i, fact in enumerate(facts) if fact["accepted"] or not selection.only_accepted]
        chosen = images.take(np.array(kept, np.int64))
        rows = [_joined(row, facts[i]) for row, i in zip(image_rows(chosen), kept, strict=True)]
        folder.add_images([f"pool-{pool.number}/{i:06d}" for i in kept], chosen, rows)
        files = [row["file_name"] for row in folder.rows[len(written) :]]
        written += [
            WrittenImage(file, filled[i], classes[images.labels[i] == 1].tolist(), facts[i])
            for file, i in zip(files, kept, strict=True)
        ]
    return written, counts


def image_facts(
    pool: Pool, images: ImageSet, scores: pa.Table | None, train: ImageSet, selection: Selection
) -> list[dict[str, Any]]:
    """Returns what is known of each image of a pool beside its labels and how it was drawn.

    `accepted` is None if it is not known yet. Raises DataError if scores or a review do not fit the images.
    """
    origin = _origin(pool)
    facts: list[dict[str, Any]] = [
        {"id": name, "source_image": train.paths[_checked_row(source, train)], **origin}
        for name, source in zip(image_ids(images), _provenance(images, "source"), strict=True)
    ]
    if images.extra is not None and NOISE_SHARE in images.extra.column_names:
        for fact, start in zip(facts, _provenance(images, "start"), strict=True):
            fact["start_image"] = None if start is None else train.paths[_checked_row(start, train, "start")]
    if scores is None:
        for fact in facts:
            fact |= {"accepted": True if selection.accept.takes_all else None, "refused": None}
        return facts
    if scores.num_rows != len(images):
        raise DataError(f"scores.parquet: has {scores.num_rows} rows for {len(images)} images; run `score` again")
    review = selection.review
    decided = [0] * len(images) if review is None else review.decisions_of(images).tolist()
    reasons = refusals(selection.accept, scores).tolist()
    accepted = accepted_images(selection.accept, images, scores, review).tolist()
    measured = table_rows(scores.drop_columns([name for name in ("index",) if name in scores.column_names]))
    for fact, values, good, reason, decision in zip(facts, measured, accepted, reasons, decided, strict=True):
        fact |= values
        fact |= {"accepted": good, "refused": None if good else reason or REJECTED}
        if review is not None:
            fact |= {"refused_by_scores": reason or None, "reviewed": WORDS.get(decision)}
    return facts


def _provenance(images: ImageSet, column: str) -> list[Any]:
    if images.extra is None or column not in images.extra.column_names:
        raise DataError(f"generated images: have no column {column!r}; run `generate` again (--rerun generate)")
    values: list[Any] = images.extra[column].to_pylist()
    return values


def _checked_row(row: Any, train: ImageSet, column: str = "source") -> int:
    if not isinstance(row, int) or not 0 <= row < len(train):
        raise DataError(
            f"generated images: column {column!r} names the training image {shown(row)}, but there are {len(train)}, from 0; run `generate` "
            "again (--rerun generate)"
        )
    return row


def _origin(pool: Pool) -> dict[str, Any]:
    """Returns what made the images: the generator, its base with a digest of its content, a LoRA for few steps, and the keys of the results."""
    content = pool.finetune.config["finetune"].get("base")
    weights = pool.finetune.inputs.get(BASE)
    if weights is not None:
        digest: str | None = weights.digest
    else:
        digest = str(content).removeprefix("sha256:") if str(content).startswith("sha256:") else None
    few_step = {} if pool.few_step is None else {"few_step": pool.few_step}
    return {
        "generator": pool.finetune.config["finetune"]["generator"],
        "base": pool.base,
        "base_digest": digest,
        **few_step,
        "finetune_key": pool.finetune.key,
        "generate_key": pool.generate.key,
    }


def _joined(row: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns both as one row; a fact that has the name of a label group gets an underscore."""
    return {**row, **{f"{name}_" if name in row else name: value for name, value in facts.items()}}
