from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.classifier.optimizer import rate_at
from shared.classifier.sampling import Sampler
from tests.support.tiny_arms import make_arm


def sampler(real: int, generated: int, **changes: object) -> Sampler:
    labels = np.zeros((real + generated, 2), np.int8)
    labels[:, 0] = 1
    labels[: max(real // 10, 1)] = (0, 1)  # a rare class
    return Sampler(make_arm(**changes), labels, np.arange(real + generated) >= real, epochs=10, seed=3)


@given(st.integers(1, 70), st.integers(0, 30), st.integers(2, 40))
def test_naturally_every_image_comes_once(real: int, generated: int, size: int) -> None:
    s = sampler(real, generated, training={"batch_size": size}, synthetic={})
    batches = s.batches(0)
    assert sorted(np.concatenate(batches)) == list(range(real + generated))
    assert max(map(len, batches)) <= size
    assert max(map(len, batches)) - min(map(len, batches)) <= 1


def test_the_order_follows_from_seed_and_epoch() -> None:
    s = sampler(30, 0)
    assert all(np.array_equal(a, b) for a, b in zip(s.batches(4), s.batches(4), strict=True))
    assert not np.array_equal(np.concatenate(s.batches(4)), np.concatenate(s.batches(5)))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_share_holds_in_every_batch_and_real_images_come_once(share: float) -> None:
    s = sampler(90, 7, training={"batch_size": 20}, synthetic={"share": share})
    batches = s.batches(0)
    every = np.concatenate(batches)
    assert sorted(every[every < 90]) == list(range(90))
    for batch in batches:
        assert (batch >= 90).mean() == pytest.approx(share, abs=1.5 / len(batch))
        assert len(batch) <= 21


def test_until_ends_the_use_of_generated_images() -> None:
    s = sampler(30, 10, synthetic={"until": 0.6})
    assert (np.concatenate(s.batches(5)) >= 30).any()
    assert not (np.concatenate(s.batches(6)) >= 30).any()


def test_share_zero_and_one() -> None:
    assert (np.concatenate(sampler(30, 10, synthetic={"share": 0.0}).batches(0)) < 30).all()
    only = np.concatenate(sampler(30, 10, synthetic={"share": 1.0}).batches(0))
    assert sorted(only) == list(range(30, 40))


def test_class_power_one_balances() -> None:
    s = sampler(1000, 0, training={"class_power": 1.0})
    drawn = np.concatenate(s.batches(0))
    assert len(drawn) == 1000
    assert (drawn < 100).mean() == pytest.approx(0.5, abs=0.06)


def test_the_rate_rises_from_zero_and_falls_along_a_cosine() -> None:
    assert rate_at(0, 60, 5) == 0
    assert rate_at(2.5, 60, 5) == 0.5
    assert rate_at(5, 60, 5) == 1
    assert rate_at(32.5, 60, 5) == pytest.approx(0.5)
    assert rate_at(60, 60, 5) == pytest.approx(0)
    assert rate_at(1, 2, 5) == 1  # a run that is shorter than its warm-up still reaches the full rate
    assert rate_at(0, 4, 0) == 1
