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
    "folder", "files", "public", "private", "x", "the", "mini",
})  # fmt: skip
"""Lists words that may stand beside it: `training_set`, `seg_train`, `Test Images`, `PublicTest`."""
SPLIT_COLUMNS = frozenset({
    "split", "splits", "set", "subset", "partition", "fold", "folds", "kfold", "phase", "usage", "data_split", "dataset_split", "train_test",
    "train_val_test", "is_train", "is_training", "is_test", "is_testing", "is_val", "is_valid", "is_validation", "istrain", "istest", "train", "test",
    "val", "valid", "validation",
})  # fmt: skip
"""Names columns, in lower case, that say how a data set is divided: they are never labels."""


PARTS = frozenset({"fold", "folds", "kfold", "part", "partition", "subset", "split", "set"})
"""Lists words that, with a number, name a part of a data set: `fold1`, `part_02`."""


def split_of(text: str) -> SplitName | None:
    """Returns the split that a name says, in any letter case: one word of SPLIT_WORDS, alone or among AROUND; None if it says none.

    The word may also be joined to one of them: `trainset`, `TestImages`.
    """
    found = [word for word in _words(text) if word not in AROUND]
    return SPLIT_WORDS.get(found[0]) if len(found) == 1 else None


def split_within(text: str) -> SplitName | None:
    """Returns the split that a name says among any other words and numbers, such as `instances_train2017`; None if it says none, or several."""
    found = {SPLIT_WORDS[word] for word in _words(without_numbers(text)) if word in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def split_in_path(path: str) -> SplitName | None:
    """Returns the split that the outermost folder of a path names, of those that name one; else the one that its name says."""
    *folders, name = path.replace("\\", "/").split("/")
    return next((split for folder in folders if (split := split_of(folder)) is not None), None) or split_within(name)


def split_of_file(stem: str) -> SplitName | None:
    """Returns the split that the name of a file of labels says, without its ending; both words for training and validation mean training.

    A file that says how all images are divided, such as `train_test_split` and `list_eval_partition`, names none.
    """
    words = set(_words(without_numbers(stem)))
    if words & {"split", "splits", "partition"}:
        return None
    found = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    return "train" if found == {"train", "val"} else found.pop() if len(found) == 1 else None


def rest_of_name(stem: str) -> tuple[str, int]:
    """Returns the words of a name of a file without those of a split and without numbers, and its last number, 0 if it has none.

    A letter that numbers the files, as in `a. Training Labels`, and the number of a version, as in `Test_v2`, are left out, too.
    """
    stem = re.sub(r"^[A-Za-z][.)]\s", "", stem)
    versioned = re.sub(r"(?<![A-Za-z])v[0-9]+(?![A-Za-z0-9])", " ", stem)
    words = [word for word in _words(without_numbers(versioned)) if word not in SPLIT_WORDS]
    numbers = re.findall(r"[0-9]{1,9}", stem)
    return " ".join(words), int(numbers[-1]) if numbers else 0


def without_numbers(text: str) -> str:
    """Returns a name without its numbers: `val` for `val2017`, `train_` for `train_01`."""
    return re.sub(r"[0-9]+", " ", text)


def part_of(text: str) -> str | None:
    """Returns which part of a data set a name seems to say, though it is no word of `split_of`: `my_train` and `fold1`; None if it says none."""
    if (split := split_within(text)) is not None:
        return split
    if {"unlabeled", "unlabelled"} & set(_words(text)):
        return "unlabelled"
    words, numbers = _words(without_numbers(text)), re.findall(r"[0-9]+", text)
    return f"part {numbers[0]}" if numbers and len(words) == 1 and words[0] in PARTS else None


def _words(text: str) -> list[str]:
    """Returns the words of a name in lower case; one that is joined to a word of AROUND is without that."""
    words = re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", text.strip())
    return [_split_off(word.lower()) for word in words if word]


def is_split_column(name: str) -> bool:
    """Returns whether a column is named as one that divides a data set."""
    return re.sub(r"[\W_]+", "_", name.strip().lower()) in SPLIT_COLUMNS


def _split_off(word: str) -> str:
    """Returns the word without one of AROUND at its end, if what is left names a split."""
    for end in AROUND:
        if word.endswith(end) and word.removesuffix(end) in SPLIT_WORDS:
            return word.removesuffix(end)
    return word
