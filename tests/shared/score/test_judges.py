import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shared.score.judges import assign_folds


@given(st.integers(6, 80), st.integers(2, 5), st.integers(0, 9))
def test_folds_are_even_and_every_fold_has_its_part_of_each_rare_class(n: int, folds: int, seed: int) -> None:
    rare = max(n // 5, folds)
    labels = np.zeros((n, 2), np.int8)
    labels[:rare, 0] = 1
    labels[rare:, 1] = 1
    fold = assign_folds(labels, folds, seed)
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    rare_sizes = np.bincount(fold[:rare], minlength=folds)
    assert rare_sizes.max() - rare_sizes.min() <= 1
    assert fold.tolist() == assign_folds(labels, folds, seed).tolist()
