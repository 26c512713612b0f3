"""`dataset:` where the labelled images come from, and `rare:` which classes are to be filled."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from shared.config.base import Section

COLUMNS = frozenset({
    "image", "split", "caption", "index", "pool", "seed", "filled", "source", "prompt", "guidance", "strength", "start", "model",
})  # fmt: skip
"""Columns that an image set has beside its label groups, whose names are therefore taken."""


def _free(name: str) -> str:
    if name in COLUMNS:
        raise ValueError(f"{name!r} is a column of every image set; name the label group otherwise")
    return name


GROUP_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$"
GroupName = Annotated[str, StringConstraints(pattern=GROUP_PATTERN), AfterValidator(_free)]
"""Letters, digits, underscores and hyphens: it becomes a column's name."""


class Split(Section):
    """How images are split where the source does not say; stratified over all label groups."""

    val: Annotated[float, Field(gt=0, lt=0.5)] = 0.15
    """Share of the images (of the training images, where the source has a test split) to validate on."""
    test: Annotated[float, Field(gt=0, lt=0.5)] = 0.15
    """Share of the images to test on; unused where the source has a test split."""


class Source(Section):
    """What all sources share."""

    resolution: Annotated[int, Field(ge=16, le=1024)] = 224
    """Side in pixels of the square images that are kept; at least what the generator and the classifier read."""
    fit: Literal["squash", "crop", "pad"] = "squash"
    """How an image becomes square: resized without regard to its aspect, cut in the middle, or padded with its border colour."""
    split: Split = Split()
    on_bad: Literal["fail", "skip"] = "fail"
    """What an unreadable image or a wrong label does: end the stage, or leave the image out and count it."""
    on_leak: Literal["fail", "drop", "keep"] = "drop"
    """What an image that stands (nearly) equal in two splits does; `drop` takes it out of the larger split's side: train, then val."""
    leak_distance: Annotated[int, Field(ge=0, le=16)] = 4
    """Perceptual-hash bits (of 256) in which two images may differ and count as the same; equal pixels always do. Saving a photograph anew as JPEG or at
    another size moves 0 to 4 bits, cutting 2 % off its border 6 to 32."""


class GarmentsSource(Source):
    """Drawn clothes with the paper's six groups, 26 classes and long tail: needs no download, deterministic by seed."""

    source: Literal["garments"]
    root: ClassVar[None] = None  # drawn images are stored nowhere; every other source has a folder or a bucket's prefix
    train: Annotated[int, Field(ge=100)] = 2400
    """Training images, with the class proportions of the DeepFashion copy in the paper's labelling."""
    val: Annotated[int, Field(ge=50)] = 600
    test: Annotated[int, Field(ge=50)] = 800
    rare_eval: Annotated[int, Field(ge=0)] = 30
    """Least number of val and of test images of each class; more are drawn where the long tail gives fewer."""


class DeepFashionSource(Source):
    """DeepFashion's *Category and Attribute Prediction*, fine annotations as distributed, or a copy in the same form."""

    source: Literal["deepfashion"]
    root: str
    """The folder that holds `img/` and `Anno_fine/` or `split/`; a path or `s3://bucket/prefix`."""
    crop: bool = False
    """Cut each image to its bounding box (`*_bbox.txt`)."""


class FolderSource(Source):
    """A folder a class, or `train/`, `val/`, `test/` with a folder a class in each."""

    source: Literal["folder"]
    root: str
    """A path or `s3://bucket/prefix`."""
    group: GroupName = "label"
    """Name of the one label group."""


class CsvGroup(Section):
    """A label group of a CSV."""

    kind: Literal["one", "any"] = "one"
    """`one` class an image, or `any` number of them (multi-label)."""
    column: str | None = None
    """The column with the class name (`one`), or with the names in a list `a|b|c` (`any`); blank means unknown."""
    columns: tuple[str, ...] | None = None
    """`any`: a 0/1 column a class; a blank cell means unknown."""
    separator: Annotated[str, Field(min_length=1)] = "|"
    """Between the names of an `any` list."""
    classes: tuple[str, ...] | None = None
    """The allowed classes in order; without it, those found in the column, sorted."""

    @model_validator(mode="after")
    def _one_way(self) -> CsvGroup:
        if (self.column is None) == (self.columns is None):
            raise ValueError("a group names either `column` or `columns`")
        if self.columns is not None and self.kind != "any":
            raise ValueError("`columns` (a 0/1 column a class) goes with `kind: any`")
        for names in (self.columns, self.classes):
            if names is not None and (not names or len(set(names)) < len(names)):
                raise ValueError(f"classes must be named, each once, got {list(names)}")
        if self.columns is not None and self.classes is not None:
            raise ValueError("`columns` are the classes; leave `classes` out")
        return self


class CsvSource(Source):
    """A CSV with a row an image."""

    source: Literal["csv"]
    root: str
    """The folder that holds the CSV and the images; a path or `s3://bucket/prefix`."""
    file: str = "labels.csv"
    """The CSV, inside `root`."""
    delimiter: Literal[",", ";", "\t"] = ","
    path_column: str = "path"
    image_folder: str = "."
    """The folder inside `root` that the paths start from."""
    split_column: str | None = None
    """A column with `train`, `val`, `test`; without it images are split by `split`."""
    group_by: str | None = None
    """A column (product, patient): images with an equal value stay in one split."""
    groups: dict[GroupName, CsvGroup] = Field(min_length=1)
    """Label groups by name."""


class FashionMnistSource(Source):
    """Fashion-MNIST's four IDX files (gzipped or not) in a folder."""

    source: Literal["fashion-mnist"]
    root: str
    resolution: Annotated[int, Field(ge=16, le=1024)] = 28
    per_class: Annotated[int, Field(ge=1)] | None = None
    """Training images kept of each class (the first ones); all of them where unset."""
    keep: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Training images kept of single garments, e.g. `{shirt: 40}`: makes the set long-tailed."""
    val_per_class: Annotated[int, Field(ge=1)] = 200
    """Validation images a class, taken from behind the training images."""


Dataset = Annotated[
    GarmentsSource | DeepFashionSource | FolderSource | CsvSource | FashionMnistSource, Field(discriminator="source")
]


class Rare(Section):
    """Which classes are rare: those below a count, those named, or both."""

    below: Annotated[int, Field(ge=1)] | None = 500
    """Classes with fewer training images than this."""
    classes: tuple[str, ...] = ()
    """Classes by name, `group/class`, e.g. `fabric/leather`."""
