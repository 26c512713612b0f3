from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.classifier.optimizer import rate_at
from shared.classifier.sampling import Sampler, without_single_images
from tests.support.tiny_arms import make_arm


def sampler(real: int, generated: int, **changes: object) -> Sampler:
    labels = np.zeros((real + generated, 2), np.int8)
    labels[:, 0] = 1
    labels[: max(real // 10, 1)] = (0, 1)  # a rare class
    return Sampler(make_arm(**changes), labels, np.arange(real + generated) >= real, epochs=10, seed=3)


SYNTHETIC = [None, {}, {"share": 0.3}, {"share": 1.0}, {"share": 0.0}, {"until": 0.5}, {"share": 0.5, "until": 0.5}]


@given(
    st.integers(1, 70), st.integers(0, 90), st.integers(2, 40), st.sampled_from([0.0, 0.5]), st.sampled_from(SYNTHETIC)
)
def test_steps_and_images_are_those_of_the_real_images_alone(
    real: int, generated: int, size: int, power: float, synthetic: dict[str, float] | None
) -> None:
    training = {"batch_size": size, "class_power": power}
    baseline = sampler(real, 0, training=training)
    other = sampler(real, generated, training=training, synthetic=synthetic)
    for epoch in range(10):
        sizes = [sorted(map(len, s.batches(epoch))) for s in (baseline, other)]
        assert sizes[0] == sizes[1]
        assert sum(sizes[0]) == real
        assert sizes[0][-1] <= size
        assert sizes[0][-1] - sizes[0][0] <= 1


@given(st.integers(1, 70), st.integers(0, 30), st.sampled_from(SYNTHETIC))
def test_no_image_comes_again_before_all_others_of_its_kind(
    real: int, generated: int, synthetic: dict[str, float] | None
) -> None:
    s = sampler(real, generated, training={"batch_size": 9}, synthetic=synthetic)
    mixed = synthetic is not None and "share" not in synthetic and generated > 0
    last = 10 if synthetic is None or "until" not in synthetic else 5
    drawn = np.bincount(np.concatenate([row for epoch in range(last) for row in s.batches(epoch)]), minlength=real)
    for kind in [drawn] if mixed else [drawn[:real], np.r_[drawn[real:], np.zeros(real + generated - len(drawn), int)]]:
        assert np.ptp(kind) <= 1 if len(kind) else True


@pytest.mark.parametrize("power", [0.0, 0.7])
@pytest.mark.parametrize("synthetic", SYNTHETIC)
def test_expected_draws_are_the_mean_of_what_is_drawn(power: float, synthetic: dict[str, float] | None) -> None:
    options = {"training": {"batch_size": 16, "class_power": power}, "synthetic": synthetic}
    for epoch in (0, 9):
        draws = np.zeros(60)
        for seed in range(150):
            s = replace(sampler(40, 20, **options), seed=seed)
            draws += np.bincount(np.concatenate(s.batches(epoch)), minlength=60) / 150
        assert s.expected_draws(epoch).sum() == pytest.approx(40)
        assert np.abs(draws - s.expected_draws(epoch)).max() < 0.5


def test_the_order_follows_from_seed_and_epoch() -> None:
    s = sampler(30, 0)
    assert all(np.array_equal(a, b) for a, b in zip(s.batches(4), s.batches(4), strict=True))
    assert not np.array_equal(np.concatenate(s.batches(4)), np.concatenate(s.batches(5)))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_share_holds_in_every_batch(share: float) -> None:
    batches = sampler(90, 7, training={"batch_size": 20}, synthetic={"share": share}).batches(0)
    assert sum((batch >= 90).sum() for batch in batches) == round(share * 90)
    for batch in batches:
        assert (batch >= 90).mean() == pytest.approx(share, abs=1.5 / len(batch))


def test_until_ends_the_use_of_generated_images() -> None:
    s = sampler(30, 10, synthetic={"until": 0.6})
    assert (np.concatenate(s.batches(5)) >= 30).any()
    assert not (np.concatenate(s.batches(6)) >= 30).any()


def test_share_zero_and_one() -> None:
    assert (np.concatenate(sampler(30, 10, synthetic={"share": 0.0}).batches(0)) < 30).all()
    only = np.concatenate(sampler(30, 10, synthetic={"share": 1.0}).batches(0))
    assert sorted(only) == sorted(3 * list(range(30, 40)))


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


@given(st.integers(1, 70), st.integers(0, 90), st.integers(2, 4), st.sampled_from(SYNTHETIC))
def test_without_single_images_all_arms_take_equal_steps(
    real: int, generated: int, size: int, synthetic: dict[str, float] | None
) -> None:
    baseline, other = (
        sampler(real, n, training={"batch_size": size}, synthetic=s) for n, s in ((0, None), (generated, synthetic))
    )
    for epoch in range(10):
        before = [s.batches(epoch) for s in (baseline, other)]
        after = [without_single_images(batches) for batches in before]
        assert len(after[0]) == len(after[1])
        for old, new in zip(before, after, strict=True):
            assert min(map(len, new)) >= 2
            assert max(map(len, new)) <= size + 1
            assert np.array_equal(np.concatenate(new), np.repeat(np.concatenate(old), 2 if real == 1 else 1))
