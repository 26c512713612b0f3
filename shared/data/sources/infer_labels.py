"""Holds what all sources with columns go by when they infer, for `tailfill init`, what the columns are."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence

from shared.config.dataset import COLUMNS
from shared.data.sources.split_words import is_split_column, split_of

MOST_CLASSES = 200
LEAST_ROWS = 3  # per class of a column that is not called as labels are
MOST_NAMED_CLASSES = 20_000  # of a column that is called as labels are
MOST_NUMBERS = 20  # distinct whole numbers in a column that is still taken for classes, not for a measurement
UNITS = frozenset({
    "unit", "identity", "person", "person_id", "patient", "patient_id", "product", "product_id", "item", "item_id", "subject",
    "subject_id", "case_id", "lesion_id", "personid", "patientid", "productid", "itemid", "subjectid", "caseid", "lesionid",
    "observation_id", "study_id", "series_id", "video_id",
})  # fmt: skip
"""Names columns, in lower case, whose equal values must stay in one split."""


LABELS = frozenset({
    "label", "labels", "class", "classes", "category", "target", "targets", "y", "diagnosis", "dx", "species", "breed", "class_id", "classid", "category_id",
    "classname", "class_name", "finding", "findings", "finding_labels", "emotion", "individual_ids", "landmark_id", "label_id", "species_id", "breed_id",
    "diagnostic", "disease", "tags",
})  # fmt: skip
"""Names columns that are labels, whatever they hold."""
CIRCUMSTANCES = frozenset({
    "sex", "gender", "age", "age_approx", "patient_age", "patient_gender", "patient_sex", "dx_type", "localization", "anatom_site_general",
    "anatom_site_general_challenge", "laterality", "year", "month", "day", "view",
    "view_position", "ap_pa", "frontal_lateral", "follow_up", "source", "license", "licence", "photographer", "confidence",
    "isoccluded", "istruncated", "isgroupof", "isdepiction", "isinside", "is_occluded", "is_truncated", "is_group_of", "is_depiction", "is_inside",
})  # fmt: skip
"""Names columns that say who or how was photographed: they are labels only if nothing else is."""
SIZES = frozenset({
    "width", "height", "xmin", "ymin", "xmax", "ymax", "x_min", "y_min", "x_max", "y_max", "x1", "y1", "x2", "y2", "x_1", "y_1", "bbox",
    "left", "top", "right", "bottom", "roi_x1", "roi_y1", "roi_x2", "roi_y2", "bbox_x", "bbox_y", "bbox_w", "bbox_h", "n_frames", "filesize", "size",
    "file_size", "image_width", "image_height",
})  # fmt: skip
"""Names columns that measure an image or a box in it: they are never labels."""


def words_of(column: str) -> str:
    """Returns a column's name in lower case, its words joined by one underscore: `patient_id` for `Patient ID` and for `PatientID`.

    A word begins with a capital after a small letter, so that capitals in a row, such as `XMin` and `DX`, stay one word.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column.strip())
    return re.sub(r"[\W_]+", "_", spaced.lower()).strip("_")


def unit_column(columns: Iterable[str], cells: Callable[[str], Sequence[object]]) -> str | None:
    """Returns the first column of products, patients and the like, of which one has several images; None if there is none."""
    units = [(column, cells(column)) for column in columns if words_of(column) in UNITS]
    return next((column for column, values in units if 1 < len(set(map(str, values))) < len(values)), None)


def repeated_id(columns: Iterable[str], cells: Callable[[str], Sequence[str]]) -> str | None:
    """Returns the first column `id` that repeats on too few rows for a class, as that of a person whose eyes have a row each; None if there is none."""
    for column in columns:
        different, rows = len(set(cells(column))), len(cells(column))
        if words_of(column) == "id" and 1 < different < rows < LEAST_ROWS * different:
            return column
    return None


def split_column(columns: Iterable[str], cells: Callable[[str], Sequence[object]]) -> str | None:
    """Returns the first column whose values all name a split, one of them train; None if there is none.

    If the column's name says so, too, it counts with other values among them: whoever reads it reports these.
    """
    for column in columns:
        splits = {split_of(value) if isinstance(value, str) else None for value in cells(column)}
        if len(splits) > 1 and "train" in splits and (None not in splits or is_split_column(column)):
            return column
    return None


def group_name(column: str, taken: Collection[str]) -> str:
    """Returns a name for the label group of a column that is valid and not taken."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in column).strip("_-")[:50] or "label"
    if name in COLUMNS:
        name = f"{name}_label"
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


def column_comments(group_by: str | None) -> dict[str, str]:
    """Returns the comments that `init` writes beside the fields `group_by` and `groups` of a source with columns."""
    return {
        "group_by": "images with an equal value stay in one split"
        if group_by is not None
        else "group_by: patient # a column whose equal values must stay in one split",
        "groups": "a label group is `kind: one` class an image, or `any` number of them; delete what is no label",
    }
