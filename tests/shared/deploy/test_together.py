"""Tests on which images an ensemble is measured."""

from __future__ import annotations

import numpy as np

from shared.deploy.torch_model import together


def test_models_with_common_test_images_are_averaged_and_those_with_a_fold_each_stand_side_by_side() -> None:
    first, second = np.array([[0.2, 0.8]], np.float32), np.array([[0.6, 0.4]], np.float32)
    a, b = np.array([[0, 1]], np.int8), np.array([[1, 0]], np.int8)
    mean, labels = together([(first, a), (second, a)], folds=False)
    np.testing.assert_allclose(mean, [[0.4, 0.6]])
    assert labels.tolist() == a.tolist()
    both, labels = together([(first, a), (second, b)], folds=True)
    np.testing.assert_allclose(both, [[0.2, 0.8], [0.6, 0.4]], rtol=1e-6)
    assert labels.tolist() == [*a.tolist(), *b.tolist()]
