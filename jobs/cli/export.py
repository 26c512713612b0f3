"""Implements `tailfill export dataset` and `tailfill export generated`: images as a folder of files with `metadata.jsonl`.

Hugging Face's `imagefolder` reads such a folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.disk import check_empty_folder
from shared.artifacts.manifest import Manifest
from shared.config.resolve import ResolvedExperiment, ResolvedStudy
from shared.data.review import arm_review
from shared.errors import ConfigError, DataError
from shared.log import Log
from shared.names import checked_name
from shared.pipeline import status as step_status
from shared.pipeline.local_session import (
    last_study,
    latest_workdir,
    local_session,
)
from shared.pipeline.plan import Step
from shared.pipeline.session import Fingerprints, Session

if TYPE_CHECKING:
    from shared.data.imageset import ImageSet

log = Log("export")


@dataclass(frozen=True)
class GeneratedImages:
    """Names the steps that make a pool of an experiment's generated images."""

    pool: int
    finetune: Step
    generate: Step
    score: Step | None
    """Holds None if the study takes all images, so that they are not scored."""


@dataclass(frozen=True)
class GeneratedExport:
    """Holds the options of `export generated`."""

    experiment: str | None = None
    pool: int | None = None
    """Chooses a pool; None takes all of them."""
    only_accepted: bool = False
    review: bool = False
    """Says whether the page `review.html` is written, with real images beside it."""
    licence: str | None = None


def generated_images(
    study: ResolvedStudy, steps: Sequence[Step], experiment: str | None, pool: int | None = None
) -> tuple[ResolvedExperiment, list[GeneratedImages]]:
    """Returns the named experiment, or the one of the study that has generated images, and the steps of its pools, or of one of them.

    Raises ConfigError if there are no such images or several sets of them, and if there is no such pool.
    """
    if pool is not None and pool >= study.pools:
        raise ConfigError(f"--pool {pool}: must be below {study.pools}, the number of pools of generated images")
    needs = steps[-1].needs  # the report needs those of every experiment
    numbers = range(study.pools) if pool is None else [pool]
    by_experiment = {
        e.name: (
            e,
            [
                GeneratedImages(
                    number,
                    needs[f"finetune/{e.name}/{number}"],
                    needs[f"generate/{e.name}/{number}"],
                    needs.get(f"score/{e.name}/{number}"),
                )
                for number in numbers
            ],
        )
        for e in study.experiments
        if f"generate/{e.name}/0" in needs
    }
    names = ", ".join(by_experiment) or "none"
    if experiment is not None:
        if experiment not in by_experiment:
            raise ConfigError(f"--experiment {experiment}: has no generated images; experiments that have: {names}")
        return by_experiment[experiment]
    distinct = {
        (*[(images.generate.id, images.score and images.score.id) for images in pools], e.accept): (e, pools)
        for e, pools in reversed(by_experiment.values())
    }
    if len(distinct) != 1:
        raise ConfigError(
            f"study {study.name}: has {len(distinct)} sets of generated images (or filters over them); "
            f"choose one with --experiment NAME: {names}"
            if distinct
            else f"study {study.name}: no experiment has generated images (images: real+synthetic or real+copies)"
        )
    return next(iter(distinct.values()))


def read_images(artifacts: Artifacts, prepared: Manifest) -> ImageSet:
    """Returns all images of the prepared data set."""
    from shared.data.dataset import read_info
    from shared.data.imageset import read_shards

    schema = read_info(artifacts.fetch(prepared.file("dataset.json"))).schema_
    return read_shards([artifacts.fetch(file) for file in prepared.shards("images")], schema)


def write_dataset(images: ImageSet, out: Path) -> str:
    """Writes `<split>/<row>.png|jpg`, and `metadata.jsonl` with one line per image: file_name, labels and more; returns a line that counts them.

    Raises ConfigError if `out` is not empty, and DataError for a split whose name leads out of it.
    """
    from shared.deploy.image_folder import image_rows, new_folder

    for split in sorted(set(images.split.tolist())):
        checked_name(split, "images, column 'split'", DataError)
    with new_folder(out) as folder:
        names = [f"{split}/{row:06d}" for row, split in enumerate(images.split.tolist())]
        folder.add_images(names, images, image_rows(images))
        folder.write_metadata()
    return f"{len(images)} images in {out}"


def export_dataset(out: Path, workdir: Path | None) -> str:
    """Writes the data set of the study that was run last into `out`; returns a line that counts the images.

    Raises ConfigError if it is not committed, or if `out` is not empty.
    """
    check_empty_folder(out)  # before services start and images are fetched
    folder = latest_workdir(workdir)
    with local_session(*last_study(folder), folder, join=True, database=False) as local:
        committed = _committed(local.session)
        prepared = _of(committed, local.session.steps[-1].needs["prepare"], folder)
        return write_dataset(read_images(local.session.artifacts, prepared), out)


def export_generated(out: Path, options: GeneratedExport, workdir: Path | None) -> str:
    """Writes the images that were generated for an experiment of the study that was run last into `out`; returns a line that counts them.

    Raises ConfigError if these images are not committed, if the experiment is unknown or ambiguous, or if `out` is not empty.
    """
    from shared.deploy.licences import check_licence

    check_empty_folder(out)
    check_licence(options.licence)
    folder = latest_workdir(workdir)
    study, fingerprints = last_study(folder)
    with local_session(study, fingerprints, folder, join=True, database=False) as local:
        return _export(local.session, fingerprints, out, options, folder)


def _export(session: Session, fingerprints: Fingerprints, out: Path, options: GeneratedExport, workdir: Path) -> str:
    from shared.deploy.dataset_card import DatasetCard
    from shared.deploy.generated import Pool, Selection, write_pools
    from shared.deploy.image_folder import new_folder
    from shared.deploy.review_page import write_review_page

    experiment, steps = generated_images(session.study, session.steps, options.experiment, options.pool)
    committed = _committed(session)
    prepared = _of(committed, session.steps[-1].needs["prepare"], workdir)
    base, few_step = experiment.finetune.base_location, experiment.generate.few_step
    pools = [
        Pool(
            step.pool,
            _of(committed, step.finetune, workdir),
            _of(committed, step.generate, workdir),
            committed.get(step.score.id) if step.score is not None else None,
            base,
            None if few_step is None else few_step.adapter,
        )
        for step in steps
    ]
    waiting = [step.score.label for step in steps if step.score is not None and step.score.id not in committed]
    if waiting:
        if options.only_accepted:
            raise ConfigError(f"--accepted: {waiting[0]} is not committed yet; `tailfill run` continues the study")
        log.warning(f"{waiting[0]} is not committed yet, so it is not known which images are accepted")
    images = read_images(session.artifacts, prepared)
    trains = dict.fromkeys((pool.number for pool in pools), images.of("train"))
    if session.study.folds:  # each pool was made from the training images of its own repetition
        own = {step.pool: _of(committed, step.generate.needs["prepare"], workdir) for step in steps}
        trains = {number: read_images(session.artifacts, manifest).of("train") for number, manifest in own.items()}
    review = arm_review(experiment.accept, fingerprints.weights, session.settings, None)
    selection = Selection(experiment.accept, review, options.only_accepted)
    with new_folder(out) as target:
        written, counts = write_pools(session.artifacts, pools, trains, selection, target)
        if options.review:
            shown = images if session.study.folds else images.of("train")
            write_review_page(session.study.name, experiment.name, written, shown, target)
        card = DatasetCard(
            session.study.name,
            experiment.name,
            session.study.dataset.source,
            pools,
            counts,
            len(written),
            session.study.dataset.resolution,
            options.licence,
            options.review,
        )
        target.write("README.md", card.markdown().encode())
        target.write_metadata()
    line = f"{len(written)} images in {out}"
    return f"{line}; {out / 'review.html'} is the page to review them" if options.review else line


def _committed(session: Session) -> dict[str, Manifest]:
    """Returns the manifests of the committed steps by their ids."""
    rows = step_status.states(session.study, session.steps, session.artifacts)
    return {row.step.id: row.manifest for row in rows if row.manifest is not None}


def _of(committed: dict[str, Manifest], step: Step, workdir: Path) -> Manifest:
    if step.id not in committed:
        raise ConfigError(
            f"{workdir}: nothing is committed of {step.label}; `tailfill status` shows the study's progress"
        )
    return committed[step.id]
