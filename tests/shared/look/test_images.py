from __future__ import annotations

import numpy as np

from shared.look.images import odd_images, sample


def test_a_sample_has_rare_classes_whole() -> None:
    labels = np.zeros((1000, 3), np.int8)
    labels[:, 0] = 1
    labels[:40] = [0, 1, 0]
    labels[40:50] = [0, 0, 1]
    chosen = sample(labels, 150)
    assert len(chosen) == 150
    assert labels[chosen].sum(axis=0).tolist() == [100, 40, 10]
    assert chosen.tolist() == sorted(chosen.tolist()) == sample(labels, 150).tolist()
    assert sample(labels, 1000).tolist() == list(range(1000))


def test_images_that_stand_out() -> None:
    sizes = np.array([[100, 90]] * 10 + [[20, 20], [500, 100], [100, 100]])
    plain = np.zeros(13, np.bool_)
    plain[12] = True
    assert list(odd_images(sizes, plain)) == [(12, "one colour"), (10, "tiny"), (11, "long and thin")]
    assert list(odd_images(np.empty((0, 2), np.int64), np.empty(0, np.bool_))) == []
    panoramas = np.array([[500, 100]] * 10)
    assert list(odd_images(panoramas, np.zeros(10, np.bool_))) == []
