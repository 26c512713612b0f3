"""Chooses the labels of the drawn garments: the paper's six groups and 26 classes, in the proportions of DeepFashion's long tail.

The class counts are those of the 5,000 training images of the DeepFashion copy in the paper's labelling. Every split has these proportions to
within one image. Across groups, labels are correlated through two hidden traits of a garment, how warm and how dressy it is, so that knits tend
to have long sleeves and chiffon tends to be a dress.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shared.config.dataset import GarmentsSource
from shared.data.schema import LabelGroup, Labels, LabelSchema, class_counts

COUNTS: dict[str, dict[str, int]] = {
    "pattern": {
        "floral": 768, "graphic": 853, "striped": 334, "embroidered": 422, "pleated": 109, "solid": 2408, "lattice": 106,
    },
    "sleeve": {"long_sleeve": 1523, "short_sleeve": 862, "sleeveless": 2615},
    "length": {"maxi_length": 488, "mini_length": 951, "no_dress": 3561},
    "neckline": {"crew_neckline": 2086, "v_neckline": 826, "square_neckline": 19, "no_neckline": 2069},
    "fabric": {"denim": 310, "chiffon": 702, "cotton": 3399, "leather": 105, "faux": 48, "knit": 436},
    "fit": {"tight": 749, "loose": 279, "conventional": 3972},
}  # fmt: skip
SPLITS = ("train", "val", "test")

# per group: the weights of (warmth, dressiness, chance) in an image's position on the group's axis, and the classes along that axis,
# from cold to warm or from plain to dressy
_AXES: dict[str, tuple[tuple[float, float, float], tuple[str, ...]]] = {
    "pattern": ((0.0, 0.5, 1.0), ("graphic", "striped", "lattice", "solid", "embroidered", "floral", "pleated")),
    "sleeve": ((0.8, 0.0, 1.0), ("sleeveless", "short_sleeve", "long_sleeve")),
    "length": ((-0.2, 0.7, 1.0), ("no_dress", "mini_length", "maxi_length")),
    "neckline": ((0.0, 0.3, 1.0), ("crew_neckline", "square_neckline", "v_neckline", "no_neckline")),
    "fabric": ((0.8, -0.2, 1.0), ("chiffon", "cotton", "denim", "leather", "knit", "faux")),
    "fit": ((-0.2, 0.3, 1.0), ("loose", "conventional", "tight")),
}


def garment_schema() -> LabelSchema:
    """Returns the paper's six groups and 26 classes, in its order."""
    return LabelSchema(groups=tuple(LabelGroup(name=name, classes=tuple(classes)) for name, classes in COUNTS.items()))


def draw_labels(source: GarmentsSource, split: str, seed: int) -> Labels:
    """Returns the label combinations of one split, `[n, 26]`, in shuffled order.

    n is the split's size; in `val` and `test` images are added until each class has `source.rare_eval`.
    """
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    size = {"train": source.train, "val": source.val, "test": source.test}[split]
    labels = _long_tail(size, rng)
    if split != "train":
        labels = _with_rare(labels, source.rare_eval, rng)
    return labels[rng.permutation(len(labels))]


def proportional(counts: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Distributes n images in proportion to `counts` `[k]`: whole numbers by largest remainder, at least one per class; returns `[k]`."""
    exact = counts / counts.sum() * n
    shares: NDArray[np.int64] = np.maximum(np.floor(exact).astype(np.int64), 1)
    order = np.argsort(exact - shares)[::-1]  # largest remainder first
    missing = n - int(shares.sum())
    if missing > 0:
        shares[order[:missing]] += 1
    elif missing < 0:
        shares[int(shares.argmax())] += missing
    return shares


def _long_tail(n: int, rng: np.random.Generator) -> Labels:
    """Returns n combinations with exact class counts: each group assigns its classes in the order of a noisy trait."""
    traits = rng.standard_normal((2, n))
    blocks = []
    for group, counts in COUNTS.items():
        (warm, dressy, chance), axis = _AXES[group]
        place = warm * traits[0] + dressy * traits[1] + chance * rng.standard_normal(n)
        names = list(counts)
        shares = proportional(np.array([counts[name] for name in axis], np.int64), n)
        along = np.repeat([names.index(name) for name in axis], shares)
        classes = np.empty(n, np.int64)
        classes[np.argsort(place, kind="stable")] = along
        blocks.append(np.eye(len(names), dtype=np.int8)[classes])
    return np.concatenate(blocks, axis=1)


def _with_rare(labels: Labels, least: int, rng: np.random.Generator) -> Labels:
    """Adds combinations, each a present one with one group changed to a class that lacks images, until every class has `least`."""
    slices = list(garment_schema().slices().values())
    for columns in slices:
        for column in range(columns.start, columns.stop):
            lacking = least - int(class_counts(labels)[column])
            if lacking <= 0:
                continue
            added = labels[rng.integers(len(labels), size=lacking)].copy()
            added[:, columns] = 0
            added[:, column] = 1
            labels = np.concatenate([labels, added])
    return labels
