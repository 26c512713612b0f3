"""Gives null.py its data: a data set as a study prepares it, and further real images of its rare classes that it does not contain.

An arm that adds held-out real images has an effect that is no artefact of a generator; two arms that add different random draws of them do
not differ in effect. The draws are from one finite set, so two of them share some images: about half of them of drawn garments.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.generate import COLUMNS
from jobs.prepare import prepare
from shared.config.load import load_study
from shared.config.resolve import ResolvedStudy
from shared.config.seeds import hashed_seed
from shared.config.stages import PrepareConfig
from shared.data.dataset import DatasetInfo, describe, rare_classes, read_info
from shared.data.imageset import ImageSet, read_shards
from shared.diffusion.quota import PlannedImage, plan_images
from shared.errors import DataError
from shared.stop import StopSignal

STUDIES = Path(__file__).parents[1] / "studies"
THINNED = 40
ACCEPTS_ALL = "accept={plausibility: [0.0, 1.0], copies: allow}"


@dataclass(frozen=True)
class Setup:
    """Says how a data set with held-out images is made."""

    study: str
    """Names the file in studies/ whose images, classifier, training, space and objective are measured."""
    sets: tuple[str, ...] = ()
    """Lists changes of the study."""
    held_out: tuple[str, ...] = ()
    """Lists further changes with which the same source gives the held-out images: those of its training split that the study does not have."""
    thinned: tuple[str, ...] = ()
    """Lists frequent classes of which THINNED training images stay; the others are held out."""


SETUPS = {
    "garments": Setup("demo.yaml", held_out=("seed=1000", "dataset.train=9000")),
    "fashion-mnist": Setup("fashion-mnist.yaml", held_out=("dataset.keep={}", "dataset.per_class=3000")),
    "deepfashion": Setup(
        "deepfashion-lite.yaml",
        sets=("rare={below: null, classes: [fabric/denim, fit/loose, pattern/embroidered]}",),
        thinned=("fabric/denim", "fit/loose", "pattern/embroidered"),
    ),
}


@dataclass(frozen=True)
class HeldOut:
    """Holds a prepared data set with held-out images of its rare classes."""

    study: ResolvedStudy
    info: DatasetInfo
    images: ImageSet
    """Holds the real images of all splits."""
    rare: NDArray[np.int64]
    """Holds the columns of the rare classes."""
    more: ImageSet
    """Holds the held-out real images."""

    @classmethod
    def of(cls, setup: Setup, sets: tuple[str, ...] = ()) -> HeldOut:
        """Prepares the images; raises what `prepare` raises."""
        file = STUDIES / setup.study
        study = load_study(file, [*setup.sets, ACCEPTS_ALL, *sets])
        images = prepared(study)
        if setup.held_out:
            more = prepared(load_study(file, [*setup.sets, *sets, *setup.held_out])).of("train")
            known = {hashlib.sha256(data).digest() for data in images.encoded}
            new = [i for i, data in enumerate(more.encoded) if hashlib.sha256(data).digest() not in known]
            more = more.take(np.array(new, np.int64))
        else:
            thin = np.zeros(len(images), np.bool_)
            for name in setup.thinned:
                of_class = (images.split == "train") & (images.labels[:, images.schema.column(name)] == 1)
                rows = np.flatnonzero(of_class & ~thin)
                thin[np.random.default_rng(hashed_seed("thin", name)).permutation(rows)[THINNED:]] = True
            more, images = images.take(np.flatnonzero(thin)), images.take(np.flatnonzero(~thin))
        data = study.dataset
        info = describe(data.source, images.schema, data.resolution, images.labels, images.split)
        return cls(study, info, images, rare_classes(study.written.rare, info), more)

    def pool(self, arm: str, number: int) -> ImageSet:
        """Returns pool `number` of an arm as `generate` would commit it: other held-out images of the classes that the study fills.

        The draw follows from the study's seed, the name of the arm and the number. Raises DataError if too few images are held out.
        """
        train = self.images.of("train")
        generate = self.study.experiments[-1].generate
        seed = self.study.seed
        plan = plan_images(generate, train.schema, train.labels, self.rare, hashed_seed(arm, seed), number)
        rows = self._drawn(plan, np.random.default_rng(hashed_seed("held out", arm, seed, number)))
        chosen = self.more.take(rows)
        provenance = [
            {
                "index": image.index, "pool": number, "seed": image.seed, "filled": image.filled, "source": image.source,
                "prompt": "", "guidance": generate.guidance, "strength": None, "start": None, "model": "held-out real images",
            }
            for image in plan
        ]  # fmt: skip
        return ImageSet(
            train.schema,
            chosen.encoded,
            [f"generated/{image.index:06d}.png" for image in plan],
            np.full(len(plan), "generated"),
            chosen.labels,
            pa.Table.from_pylist(provenance, COLUMNS),
        )

    def _drawn(self, plan: list[PlannedImage], random: np.random.Generator) -> NDArray[np.int64]:
        """Returns a different row of the held-out images per planned image, which has the class that this one fills."""
        free = np.ones(len(self.more), np.bool_)
        orders = {
            name: random.permutation(np.flatnonzero(self.more.labels[:, self.more.schema.column(name)] == 1))
            for name in dict.fromkeys(image.filled for image in plan)
        }
        rows = []
        for image in plan:
            left = orders[image.filled]
            left = left[free[left]]
            if not len(left):
                raise DataError(f"too few images of {image.filled} are held out for the {len(plan)} that a pool takes")
            free[left[0]] = False
            rows.append(left[0])
        return np.array(rows, np.int64)


def prepared(study: ResolvedStudy) -> ImageSet:
    """Returns the images of a study as its stage `prepare` makes them."""
    root = study.dataset.root
    config = PrepareConfig(dataset=study.dataset, rare=study.written.rare, seed=study.seed)
    with tempfile.TemporaryDirectory() as folder:
        files = prepare(config, Path(root) if root is not None else None, Path(folder), StopSignal()).files
        schema = read_info(files["dataset.json"]).schema_
        return read_shards([path for name, path in sorted(files.items()) if name.startswith("images-")], schema)
