"""Reads the source `garments`: drawn clothes with the paper's groups, classes and long tail, which need no download.

They are drawings and do not replace photographs: every part can be tried with them, but results say nothing about DeepFashion.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shared.config.dataset import GarmentsSource
from shared.data.garments.labels import draw_labels, garment_schema
from shared.data.schema import Labels, LabelSchema
from shared.data.source import SPLITS, ImageListing, SourceImage, SplitName


def read_garments(config: GarmentsSource, seed: int) -> ImageListing:
    """Lists the drawn images. An image depends on the seed, its split and its number only, not on the order in which images are drawn."""
    labels = {split: draw_labels(config, split, seed) for split in SPLITS}
    return ImageListing(
        schema=garment_schema(),
        images=_images(labels, config.resolution, seed),
        total=sum(len(rows) for rows in labels.values()),
        notes=(
            "Drawn by the built-in renderer with the class proportions of DeepFashion's 5,000-image copy; no photographs.",
        ),
    )


def garment_image(
    schema: LabelSchema, labels: Labels, split: SplitName, index: int, resolution: int, seed: int
) -> SourceImage:
    """Draws image `index` of a split, with labels `[26]`, from a random generator of its own."""
    from shared.data.garments.scene import draw_garment  # it needs Pillow, which the image of control does not contain

    names = {
        group: schema.group(group).classes[int(labels[where].argmax())] for group, where in schema.slices().items()
    }
    rng = np.random.default_rng(
        [seed, SPLITS.index(split), index, 1]
    )  # the 1 keeps it apart from the labels' generator
    path = f"{split}/{index:06d}.png"
    return SourceImage(path, f"garments {split} image {index}", draw_garment(names, resolution, rng), labels, split)


def _images(labels: dict[SplitName, Labels], resolution: int, seed: int) -> Iterator[SourceImage]:
    schema = garment_schema()
    for split, rows in labels.items():
        for index, row in enumerate(rows):
            yield garment_image(schema, row, split, index, resolution, seed)
