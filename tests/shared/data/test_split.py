from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.config.dataset import Fold, Split
from shared.data.split import assign_splits, join_units, stratify
from shared.errors import DataError

SHARES = (0.7, 0.15, 0.15)


def labels_of(*groups: list[int]) -> np.ndarray:  # type: ignore[type-arg]
    """Returns one-hot labels of several groups of kind `one`, side by side."""
    return np.concatenate([np.eye(max(g) + 1, dtype=np.int8)[g] for g in groups], axis=1)


FOLDS = Split(test="folds")


def test_one_group_is_plain_stratified() -> None:
    labels = labels_of([0] * 200 + [1] * 60 + [2] * 20)
    part = stratify(labels, np.arange(280), SHARES, seed=1)
    counts = np.array([[int(labels[part == p, c].sum()) for c in range(3)] for p in range(3)])
    assert counts.tolist() == [[140, 42, 14], [30, 9, 3], [30, 9, 3]]


def test_groups_jointly() -> None:
    rng = np.random.default_rng(3)
    a = rng.choice(4, 1000, p=[0.7, 0.2, 0.07, 0.03])
    b = rng.choice(3, 1000, p=[0.8, 0.16, 0.04])
    labels = labels_of(a.tolist(), b.tolist())
    part = stratify(labels, np.arange(1000), SHARES, seed=0)
    for p, share in enumerate(SHARES):
        wanted = labels.sum(axis=0) * share
        assert (np.abs(labels[part == p].sum(axis=0) - wanted) <= np.maximum(3, 0.05 * wanted)).all()
        assert abs((part == p).sum() - 1000 * share) <= 5


def test_a_class_of_three_is_in_every_part() -> None:
    labels = labels_of([0] * 97 + [1] * 3)
    part = stratify(labels, np.arange(100), SHARES, seed=0)
    assert sorted(part[97:].tolist()) == [0, 1, 2]


def test_deterministic_by_seed() -> None:
    labels = labels_of([0, 1] * 50)
    parts = [stratify(labels, np.arange(100), SHARES, seed).tolist() for seed in (0, 0, 1)]
    assert parts[0] == parts[1]
    assert parts[0] != parts[2]


@settings(max_examples=80, deadline=None)
@given(data=st.data(), n=st.integers(1, 60), width=st.integers(1, 5))
def test_units_stay_together_and_every_image_has_a_part(data: st.DataObject, n: int, width: int) -> None:
    labels = np.array(
        data.draw(
            st.lists(st.lists(st.sampled_from([-1, 0, 1]), min_size=width, max_size=width), min_size=n, max_size=n)
        ),
        np.int8,
    )
    units = np.array(data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)))
    part = stratify(labels, units, SHARES, 0)
    assert set(part.tolist()) <= {0, 1, 2}
    for unit in np.unique(units):
        assert len(set(part[units == unit].tolist())) == 1


def test_units_are_joined_by_group_and_by_likeness() -> None:
    units = join_units(["p", None, "p", None, "q"], np.array([0, 1, 2, 1, 2]))
    # 0 and 2 share a product, 2 and 4 are alike, 1 and 3 are alike
    assert len(set(units[[0, 2, 4]].tolist())) == 1
    assert units[1] == units[3] != units[0]


def test_what_the_source_says_stands() -> None:
    given_split = np.array(["train", "val", "test", "train"])
    split, notes = assign_splits(given_split, labels_of([0, 1, 0, 1]), np.arange(4), Split(), 0)
    assert split.tolist() == given_split.tolist()
    assert notes == ()


def test_val_becomes_test_where_there_is_none() -> None:
    labels = labels_of([0, 1] * 60)
    given_split = np.array(["train"] * 100 + ["val"] * 20)
    split, notes = assign_splits(given_split, labels, np.arange(120), Split(val=0.2), 0)
    assert (split[100:] == "test").all()
    assert labels[split == "val"].sum(axis=0).tolist() == [10, 10]
    assert len(notes) == 2


def test_nothing_said_is_split_here() -> None:
    labels = labels_of([0, 1] * 50)
    for said in ("", "train"):
        split, notes = assign_splits(np.array([said] * 100), labels, np.arange(100), Split(val=0.1, test=0.2), 0)
        assert {s: int((split == s).sum()) for s in ("train", "val", "test")} == {"train": 70, "val": 10, "test": 20}
        assert len(notes) == 1


def test_folds_test_every_image_once_and_keep_units_together() -> None:
    random = np.random.default_rng(0)
    labels = labels_of(random.choice([0, 1], 300, p=[0.9, 0.1]).tolist())
    units = np.arange(300) // 2
    tested = []
    for number in range(6):
        split, notes = assign_splits(np.array([""] * 300), labels, units, FOLDS, 3, Fold(number=number, count=6))
        tested.append(split == "test")
        assert len(notes) == 1
        assert all(len(set(split[units == unit].tolist())) == 1 for unit in np.unique(units))
        assert all((labels[split == part].sum(axis=0) > 0).all() for part in ("train", "val", "test"))
        share = (split == "val").sum() / (split != "test").sum()
        assert 0.1 < share < 0.2
    assert (np.sum(tested, axis=0) == 1).all()
    rare = [int(labels[part, 1].sum()) for part in tested]
    assert max(rare) - min(rare) <= 2


@pytest.mark.parametrize("said", ["val", "test"])
def test_folds_need_a_source_that_names_no_split(said: str) -> None:
    given_split = np.array(["train"] * 10 + [said] * 2)
    with pytest.raises(
        DataError, match=rf"dataset.split.test: must be a share such as 0.15 .*names its {said} images, got folds"
    ):
        assign_splits(given_split, labels_of([0, 1] * 6), np.arange(12), FOLDS, 0, Fold(number=0, count=6))
