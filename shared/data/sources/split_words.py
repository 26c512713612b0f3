"""Defines the words by which folders, columns and files name a split."""

from __future__ import annotations

import re

from shared.data.source import SplitName

_WORDS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "trainval", "traindev"),
    "val": ("val", "valid", "validation", "validate", "validating", "dev", "devel", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "holdout"),
}
SPLIT_WORDS: dict[str, SplitName] = {word: split for split, words in _WORDS.items() for word in words}
"""Maps each word to its split."""
AROUND = frozenset({
    "set", "sets", "data", "dataset", "split", "seg", "image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "sample", "samples",
    "folder", "files", "public", "private", "x", "the",
})  # fmt: skip
"""Lists words that may stand beside it: `training_set`, `seg_train`, `Test Images`, `PublicTest`."""
SPLIT_COLUMNS = frozenset({
    "split", "splits", "set", "subset", "partition", "fold", "folds", "kfold", "phase", "usage", "data_split", "dataset_split", "train_test",
    "train_val_test", "is_train", "is_training", "is_test", "is_testing", "is_val", "is_valid", "is_validation", "istrain", "istest", "train", "test",
    "val", "valid", "validation",
})  # fmt: skip
"""Names columns, in lower case, that say how a data set is divided: they are never labels."""


def split_of(text: str) -> SplitName | None:
    """Returns the split that a name says, in any letter case: one word of SPLIT_WORDS, alone or among AROUND; None if it says none.

    The word may also be joined to one of them: `trainset`, `TestImages`.
    """
    words = [word for word in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", text.strip()) if word]
    found = [word for word in (_split_off(word.lower()) for word in words) if word not in AROUND]
    return SPLIT_WORDS.get(found[0]) if len(found) == 1 else None


def is_split_column(name: str) -> bool:
    """Returns whether a column is named as one that divides a data set."""
    return re.sub(r"[\W_]+", "_", name.strip().lower()) in SPLIT_COLUMNS


def _split_off(word: str) -> str:
    """Returns the word without one of AROUND at its end, if what is left names a split."""
    for end in AROUND:
        if word.endswith(end) and word.removesuffix(end) in SPLIT_WORDS:
            return word.removesuffix(end)
    return word
