"""Defines the sections `dataset:`, which says where the labelled images come from, and `rare:`, which says which classes are filled."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from shared.config.base import Section

SplitName = Literal["train", "val", "test"]

COLUMNS = frozenset({
    "image", "split", "unit", "caption", "index", "pool", "seed", "filled", "source", "prompt", "guidance", "strength", "start", "model",
    "noise_share",
})  # fmt: skip
"""Lists the columns that every image set has beside its label groups; no label group may have one of these names."""


def _reject_reserved_name(name: str) -> str:
    if name in COLUMNS:
        raise ValueError(f"{name!r} is a column of every image set; choose another name for the label group")
    return name


GROUP_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$"
GroupName = Annotated[str, StringConstraints(pattern=GROUP_PATTERN), AfterValidator(_reject_reserved_name)]
"""Names a label group, with letters, digits, underscores and hyphens, since it becomes the name of a column."""


class Fold(Section):
    """Names one of several folds of a data set, which a repetition tests on."""

    number: Annotated[int, Field(ge=0)]
    """Gives its number, from 0."""
    count: Annotated[int, Field(ge=2)]
    """Counts the folds."""


class Split(Section):
    """Says how images are split if the source has no splits of its own. The split is stratified over all label groups."""

    val: Annotated[float, Field(gt=0, lt=0.5)] = 0.15
    """Sets the share of the images used for validation. If the source has a test split, it is the share of its training images, and with
    `test: folds` that of the images outside of the test fold."""
    test: Annotated[float, Field(gt=0, lt=0.5)] | Literal["folds"] = 0.15
    """Sets the share of the images used for testing; unused if the source has a test split. `folds` tests on every image once: each of the
    `final.seeds` repetitions tests on a fold of its own, and its search, its generator and its training see the others. That needs a verdict with
    `generators: each`, a source without val and test splits, and `final.seeds` + 2 images, or groups of images, of each class. `prepare`, the generator
    and the judges then run once per repetition."""


class Source(Section):
    """Holds the settings that all image sources share."""

    label_files: ClassVar[frozenset[str]] = frozenset({".csv", ".txt", ".tsv"})
    """Lists the endings of files that hold labels. A data set is identified by their content and by the size of all other files, as an edited
    label seldom changes a file's size."""

    fixed_groups: ClassVar[tuple[str, ...]] = ()
    """Names the label groups of a source that always has the same."""

    resolution: Annotated[int, Field(ge=16, le=1024)] = 224
    """Sets the side in pixels of the square images that `prepare` stores. It is at least the resolution of the generator and of the classifier."""
    fit: Literal["squash", "crop", "pad"] = "squash"
    """Says how an image becomes square: `squash` resizes it without keeping its aspect ratio, `crop` cuts out its middle, `pad`
    adds a margin in its border colour."""
    split: Split = Split()
    """Says how images are split if the source has no splits of its own."""
    on_bad: Literal["fail", "skip"] = "fail"
    """Says what happens to an unreadable image or a wrong label: `fail` ends the stage, `skip` leaves the image out and counts it."""
    on_leak: Literal["fail", "drop", "keep"] = "drop"
    """Says what happens if two splits contain the same, or nearly the same, image: `fail` ends the stage, `drop` removes it from the split
    that comes first in train, val, test, and `keep` only reports it."""
    leak_distance: Annotated[int, Field(ge=0, le=16)] = 4
    """Sets the number of perceptual-hash bits, of 256, in which two images may differ and still count as the same. Images with equal pixels
    always do. Saving a photograph again as JPEG or at another size changes 0 to 4 bits, cutting 2 % off its border 6 to 32."""
    window: tuple[float, float] | None = Field(default=None, exclude_if=lambda window: window is None)
    """Sets the two values that become black and white in grey images of 16 or 32 bits or floating point, e.g. `[0, 4095]`. If unset, each such
    image has its own: its percentiles 0.5 and 99.5."""
    megapixels: Annotated[int, Field(ge=1, le=2000)] | None = Field(default=None, exclude_if=lambda most: most is None)
    """Sets how many million pixels an image may have; if unset, 67. A small file that unpacks to more may be made to fill the memory."""

    @property
    def label_endings(self) -> frozenset[str]:
        """Returns the endings of the files that hold labels, as the settings are."""
        return self.label_files

    @property
    def group_names(self) -> tuple[str, ...]:
        """Returns the names of the label groups, which are known before any data are read."""
        single = getattr(self, "group", None)
        return self.fixed_groups or tuple(getattr(self, "groups", ())) or (str(single),)

    @field_validator("window")
    @classmethod
    def _check_window(cls, window: tuple[float, float] | None) -> tuple[float, float] | None:
        if window is not None and not (all(map(math.isfinite, window)) and window[0] < window[1]):
            raise ValueError(f"the first value must be less than the second, got {list(window)}")
        return window


class GarmentsSource(Source):
    """Draws clothes with the paper's six label groups, 26 classes and long tail. They need no download and depend on the seed alone."""

    fixed_groups: ClassVar[tuple[str, ...]] = ("pattern", "sleeve", "length", "neckline", "fabric", "fit")

    source: Literal["garments"]
    """Chooses this source."""
    root: ClassVar[None] = None  # drawn images are stored nowhere; every other source has a folder or a bucket's prefix
    train: Annotated[int, Field(ge=100)] = 2400
    """Sets the number of training images, with the class proportions of the DeepFashion copy in the paper's labelling."""
    val: Annotated[int, Field(ge=50)] = 600
    """Sets the number of validation images."""
    test: Annotated[int, Field(ge=50)] = 800
    """Sets the number of test images."""
    rare_eval: Annotated[int, Field(ge=0)] = 30
    """Sets the least number of validation and of test images per class; images are added to classes that have fewer."""


class DeepFashionSource(Source):
    """Reads DeepFashion's *Category and Attribute Prediction* with its fine annotations, as distributed or as a copy in the same form.

    A path such as `img/Sheer_Blouse/img_0001.jpg` names the product; photographs of one product stay in one split, as far as `prepare` splits.
    """

    fixed_groups: ClassVar[tuple[str, ...]] = ("pattern", "sleeve", "length", "neckline", "fabric", "fit")

    source: Literal["deepfashion"]
    """Chooses this source."""
    root: str
    """Names the folder that holds `img/` and `Anno_fine/` or `split/`; a path or `s3://bucket/prefix`."""
    crop: bool = False
    """Says whether each image is cut to its bounding box (`*_bbox.txt`)."""


class FolderSource(Source):
    """Reads one folder per class, or `train/`, `val/` and `test/` with one folder per class in each."""

    source: Literal["folder"]
    """Chooses this source."""
    root: str
    """Names the folder that holds the folders: a path or `s3://bucket/prefix`."""
    group: GroupName = "label"
    """Names the only label group."""
    names: dict[str, str] = Field(default_factory=dict, exclude_if=lambda names: not names)
    """Maps folders to the names of their classes, such as `{n02007558: flamingo}`. A folder that is not in it names its class itself, and folders
    with an equal name are one class. If one is a path of several folders, such as `a/abbey`, only the folders that are named are classes."""
    folder: str = Field(default=".", exclude_if=lambda folder: folder == ".")
    """Names the folder inside `root` that holds the class folders, or `train/`, `val/` and `test/`."""
    by: Literal["folder", "name"] = Field(default="folder", exclude_if=lambda by: by == "folder")
    """Says what names the class: the `folder`, or the beginning of a file's `name` before its number, as in `cat.0.jpg`."""
    skip: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)
    """Lists names of files and folders that are left out at any depth, such as `masks` or `*.txt`."""
    lists: dict[SplitName, str] = Field(default_factory=dict, exclude_if=lambda lists: not lists)
    """Names text files inside `root` that list the images of a split, a path or name per line. Images that none lists are left out."""
    tables: dict[SplitName, str] = Field(default_factory=dict, exclude_if=lambda tables: not tables)
    """Names, for a split whose images are in no class folders, a text file inside `root` whose lines begin with an image and its class folder, after a
    header if it has one."""


class CsvGroup(Section):
    """Describes a label group of a CSV file."""

    kind: Literal["one", "any"] = "one"
    """Says whether an image has `one` class of the group, or `any` number of them (multi-label)."""
    column: str | None = None
    """Names the column with the class name (`one`), or with a list of names (`any`): `a|b|c`, or in brackets as Python, JSON and PostgreSQL write
    it. A blank cell means unknown, and so does a mark of pandas such as `NaN` or `NULL`; `None`, `NA` and `N/A` do if `classes` is set and
    lacks them."""
    columns: tuple[str, ...] | None = None
    """Lists one 0/1 column per class. A blank cell means unknown; -1 means no if there is no 0 in the columns, else unknown."""
    separator: Annotated[str, Field(min_length=1)] = "|"
    """Sets the text between the names of a list, with `kind: any`."""
    classes: tuple[str, ...] | None = None
    """Lists the allowed classes in order; `1.0` in the column is the class `1`. If unset, they are all that are in the column, sorted."""
    names: dict[str, str] = Field(default_factory=dict, exclude_if=lambda names: not names)
    """Maps cells of the column to the names of their classes, such as `{"0": healthy}`."""

    @model_validator(mode="after")
    def _check_columns(self) -> CsvGroup:
        if (self.column is None) == (self.columns is None):
            raise ValueError("a group needs either `column` or `columns`")
        for names in (self.columns, self.classes):
            if names is not None and (not names or len(set(names)) < len(names)):
                raise ValueError(f"each class must be named once, got {list(names)}")
        if self.columns is not None and self.classes is not None:
            raise ValueError("`columns` are the classes; remove `classes`")
        if self.names and (self.column is None or self.kind != "one"):
            raise ValueError("`names` needs `column` and `kind: one`")
        return self


Delimiter = Literal[",", ";", "\t", "|", " "]


class CsvFile(Section):
    """Describes a file beside the one that names the images: more rows of the same form, or more columns of the same rows."""

    file: str
    """Gives its path inside `root`."""
    delimiter: Delimiter = ","
    """Sets the character between two cells; a blank stands for any number of blanks."""
    header: tuple[str, ...] | None = Field(default=None, min_length=1, exclude_if=lambda header: header is None)
    """Names its columns. If unset, its first row names them."""
    skip_lines: Annotated[int, Field(ge=0)] = Field(default=0, exclude_if=lambda lines: not lines)
    """Sets the number of lines before its first row that are left out."""
    on: str | None = Field(default=None, exclude_if=lambda column: column is None)
    """Names a column of the rows so far: each row gets the cells of the row of this file that has the same value there. If unset, its rows are added."""
    key: str | None = Field(default=None, exclude_if=lambda column: column is None)
    """Names the column of this file that holds these values; if unset, it is called as `on`."""
    split: SplitName | None = Field(default=None, exclude_if=lambda split: split is None)
    """Names the split of the images in this file."""
    folder: str | None = Field(default=None, exclude_if=lambda folder: folder is None)
    """Names the folder inside `image_folder` that holds the images of the rows that this file adds. If unset, they are as those of the other rows."""


class CsvSource(Source):
    """Reads a CSV file with one row per image, or one per label."""

    source: Literal["csv"]
    """Chooses this source."""
    root: str
    """Names the folder that holds the CSV file and the images; a path or `s3://bucket/prefix`."""
    file: str = "labels.csv"
    """Gives the path of the CSV file inside `root`."""
    delimiter: Delimiter = ","
    """Sets the character between two cells; a blank stands for any number of blanks."""
    skip_lines: Annotated[int, Field(ge=0)] = Field(default=0, exclude_if=lambda lines: not lines)
    """Sets the number of lines before the first row that are left out."""
    file_split: SplitName | None = Field(default=None, exclude_if=lambda split: split is None)
    """Names the split of the images in `file`, if other files have those of other splits."""
    file_folder: str | None = Field(default=None, exclude_if=lambda folder: folder is None)
    """Names the folder inside `image_folder` that holds the images of `file`, if each file has a folder of its own."""
    more: tuple[CsvFile, ...] = Field(default=(), exclude_if=lambda files: not files)
    """Lists other files, whose rows are added or joined in their order."""
    header: tuple[str, ...] | None = Field(default=None, min_length=1, exclude_if=lambda header: header is None)
    """Names the columns of a file whose first row is an image already. If unset, the first row names them."""
    rows: Literal["image", "label"] = Field(default="image", exclude_if=lambda rows: rows == "image")
    """Says whether there is one row per `image`, or per `label`: then an image has the labels of all its rows together."""
    path_column: str = "path"
    """Names the column with the path of the image."""
    path_prefix: str = Field(default="", exclude_if=lambda prefix: not prefix)
    """Sets the text with which the paths begin and which is left out, such as the folder on the machine where the table was written."""
    lookup: Literal["path", "name"] = Field(default="path", exclude_if=lambda lookup: lookup == "path")
    """Says whether a cell of `path_column` is a `path`, or only the `name` of a file, with or without its ending, anywhere in `image_folder`."""
    name_suffix: str = Field(default="", exclude_if=lambda suffix: not suffix)
    """Sets the text that the files' names have behind those in the table, before their ending, such as `_aligned`."""
    image_folder: str = "."
    """Names the folder inside `root` that the images' paths are relative to. Those that are not there start from the folder of the table."""
    split_column: str | None = None
    """Names the column with `train`, `val` or `test`, or with a path that says it. If unset, images are split by `split`, or as their files say."""
    split_values: dict[str, SplitName] = Field(default_factory=dict, exclude_if=lambda values: not values)
    """Maps cells of `split_column` to splits, such as `{"0": train, "1": val, "2": test}`."""
    group_by: str | None = None
    """Names a column such as the product or the patient. Images with the same value stay in one split, and in one fold of the judges."""
    groups: dict[GroupName, CsvGroup] = Field(min_length=1)
    """Describes the label groups by name."""


class FashionMnistSource(Source):
    """Reads a folder with Fashion-MNIST's four IDX files, gzipped or not."""

    fixed_groups: ClassVar[tuple[str, ...]] = ("garment", "sleeve", "worn_on")

    source: Literal["fashion-mnist"]
    """Chooses this source."""
    root: str
    """Names the folder that holds the files; a path or `s3://bucket/prefix`."""
    resolution: Annotated[int, Field(ge=16, le=1024)] = 28
    """Sets the side in pixels of the images that `prepare` stores."""
    per_class: Annotated[int, Field(ge=1)] | None = None
    """Sets the number of training images kept per class, the first ones. If unset, all are kept."""
    keep: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Sets the number of training images kept of single classes, e.g. `{shirt: 40}`, which makes the data set long-tailed."""
    val_per_class: Annotated[int, Field(ge=1)] = 200
    """Sets the number of validation images per class, taken from those that follow the training images."""


class ArraysSource(Source):
    """Reads arrays of images and labels: a NumPy archive such as MedMNIST's, or IDX files such as MNIST's and EMNIST's.

    The names of the arrays say what they are: `train_images` and `train_labels`, `x_test` and `y_test`, `train-images-idx3-ubyte` and
    `train-labels-idx1-ubyte`. Labels are class numbers, or a 0 or 1 per class.
    """

    label_files: ClassVar[frozenset[str]] = frozenset({".npz", ".gz", ".idx1-ubyte", ".idx3-ubyte", ""})

    source: Literal["arrays"]
    """Chooses this source."""
    root: str
    """Names the folder that holds the files; a path or `s3://bucket/prefix`."""
    file: str | None = None
    """Gives the path of the NumPy archive inside `root`. If unset, the folder holds IDX files, gzipped or not."""
    pixel_tables: tuple[str, ...] = Field(default=(), exclude_if=lambda tables: not tables)
    """Names CSV files inside `root`, in place of arrays, with the pixels of an image in each row, in a column each or all in one, beside its class number."""
    group: GroupName = "label"
    """Names the only label group."""
    classes: tuple[str, ...] | None = None
    """Names the classes in the order of their numbers. If unset, the numbers are their names."""
    numbers: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(), exclude_if=lambda numbers: not numbers)
    """Lists the numbers of the classes, in order, if some up to the largest are on no image, such as 1 to 26 for letters. With a 0 or 1 per class,
    they are the columns that are read."""

    @property
    def label_endings(self) -> frozenset[str]:
        """Returns the endings of the arrays, and of tables if there are some."""
        return self.label_files | ({".csv"} if self.pixel_tables else frozenset())


class ColumnGroup(Section):
    """Describes a label group of Parquet files or JSON lines."""

    kind: Literal["one", "any"] = "one"
    """Says whether an image has `one` class of the group, or `any` number of them (multi-label)."""
    column: str
    """Names the column or key with the class (`one`) or the list of classes (`any`): numbers whose names the file holds, or the names
    themselves. A mapping of each class to 1, 0 or null is a list, too."""
    classes: tuple[str, ...] | None = None
    """Lists the allowed classes in order. If unset, they are those that the file names, or all that are in the column, sorted."""


class ParquetSource(Source):
    """Reads Parquet files with one row per image, as the library `datasets` of Hugging Face writes them.

    A word of a file's path names the split, such as `data/train-00000-of-00002.parquet` or `test/0000.parquet`, unless a column does.
    """

    label_files: ClassVar[frozenset[str]] = frozenset({".parquet"})

    source: Literal["parquet"]
    """Chooses this source."""
    root: str
    """Names the folder that holds the files, at any depth; a path, `s3://bucket/prefix`, or `hf://owner/name@commit` for a data set of the hub."""
    file: str | None = None
    """Gives the path of the only file to read, inside `root`. If unset, all are read."""
    image_column: str = "image"
    """Names the column with the encoded images: bytes, or a struct with the field `bytes`."""
    split_column: str | None = None
    """Names the column with `train`, `val` or `test`. If unset, the files' names say it, or images are split by `split`."""
    group_by: str | None = None
    """Names a column such as the product or the patient. Images with the same value stay in one split, and in one fold of the judges."""
    groups: dict[GroupName, ColumnGroup] = Field(min_length=1)
    """Describes the label groups by name."""


class ImagefolderSource(Source):
    """Reads folders of images with a `metadata.jsonl` or `metadata.csv` in each, as Hugging Face's `imagefolder` and `tailfill export` have them.

    The key `file_name` of a row names the image. A folder named like a split holds it, unless a key names the split.
    """

    label_files: ClassVar[frozenset[str]] = frozenset({".csv", ".jsonl"})

    source: Literal["imagefolder"]
    """Chooses this source."""
    root: str
    """Names the folder that holds the files and the images, at any depth; a path or `s3://bucket/prefix`."""
    split_column: str | None = None
    """Names the key with `train`, `val` or `test`. If unset, the folders' names say it, or images are split by `split`."""
    group_by: str | None = None
    """Names a key such as the product or the patient. Images with the same value stay in one split, and in one fold of the judges."""
    groups: dict[GroupName, ColumnGroup] = Field(min_length=1)
    """Describes the label groups by name."""


class BoxSource(Source):
    """Holds the settings that sources of images with boxes share: each box is cut out as an image of its own, whose class is the box's."""

    root: str
    """Names the folder that holds the images and the files of boxes; a path or `s3://bucket/prefix`."""
    group: GroupName = "label"
    """Names the only label group."""
    padding: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Sets what is added to each side of a box, as a share of its longer side, so that an object is seen with some of what is around it."""
    least_size: Annotated[int, Field(ge=1, le=1024)] = 16
    """Sets the least length in pixels of a box's shorter side. Smaller boxes are left out and counted, as little is seen in them."""


class CocoSource(BoxSource):
    """Reads images with boxes as COCO has them: JSON files with `images`, `annotations` and `categories`. Without boxes, they label whole images.

    The name of a file or of its folder says the split, such as `annotations/instances_train2017.json` or `valid/_annotations.coco.json`. All boxes of
    an image stay in one split. Boxes of crowds are left out.
    """

    label_files: ClassVar[frozenset[str]] = frozenset({".json"})

    source: Literal["coco"]
    """Chooses this source."""
    file: str | None = None
    """Gives the path of the only JSON file to read, inside `root`. If unset, all are read."""
    group_by: str | None = None
    """Names a key of the images such as the place of a camera. Images with the same value stay in one split, and in one fold of the judges."""


class VocSource(BoxSource):
    """Reads images with boxes as Pascal VOC has them: an XML file per image, with its name.

    A folder that is named like a split holds it, unless lists do. All boxes of an image stay in one split.
    """

    label_files: ClassVar[frozenset[str]] = frozenset({".xml", ".txt"})

    source: Literal["voc"]
    """Chooses this source."""
    lists: dict[SplitName, str] = Field(default_factory=dict, exclude_if=lambda lists: not lists)
    """Names text files inside `root` that list the images of a split, a name per line. Images that none lists are left out."""


class YoloSource(BoxSource):
    """Reads images with boxes as YOLO has them: a text file per image, with a line per box, and a YAML file that names classes and splits.

    Without a YAML file, `classes.txt` or `obj.names` names the classes. Lines of polygons and of poses count as the boxes around them. All boxes of an
    image stay in one split.
    """

    label_files: ClassVar[frozenset[str]] = frozenset({".txt", ".yaml", ".yml", ".names"})

    source: Literal["yolo"]
    """Chooses this source."""
    file: str
    """Gives the path of the file that names the classes, inside `root`: `data.yaml`, `classes.txt` or `obj.names`."""


Dataset = Annotated[
    GarmentsSource
    | DeepFashionSource
    | FolderSource
    | CsvSource
    | FashionMnistSource
    | ArraysSource
    | ParquetSource
    | ImagefolderSource
    | CocoSource
    | VocSource
    | YoloSource,
    Field(discriminator="source"),
]


class Rare(Section):
    """Says which classes are rare: those with few training images, those that are named, or both."""

    below: Annotated[int, Field(ge=1)] | None = 500
    """Sets the number of training images below which a class is rare; null makes no class rare by its count."""
    classes: tuple[str, ...] = ()
    """Lists classes that are rare whatever their count, as `group/class`, e.g. `fabric/leather`."""
