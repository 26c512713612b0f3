"""Tests that the parts of a training are told apart, on a clock that real trainings move; that a forecast fits is measured by whole studies, not here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from torch import Tensor

from shared.classifier import timing
from shared.classifier.data import TrainingData
from shared.classifier.frozen_features import FrozenBackbone, View
from shared.classifier.model import Network
from shared.classifier.timing import FEW, time_training
from shared.config.search import Resources
from shared.config.stages import Arm
from tests.support.tiny_arms import SCHEMA, make_arm

EPOCH, STEP, IMAGE, VIEW = 0.02, 0.004, 0.0005, 0.01
"""Set the seconds that the clock moves for an epoch, a step, an image of it, and a view in the frozen backbone."""


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Lets the work of a training alone move the clock; what is returned maps numbers of images to seconds that an epoch of so many takes in addition."""
    now, late = [0.0], dict[int, float]()
    batch, validation, computed = TrainingData.batch, TrainingData.validation, FrozenBackbone.computed

    def counted_batch(
        data: TrainingData, network: Network, arm: Arm, rows: np.ndarray, seed: int, epoch: int, number: int
    ) -> Tensor:
        now[0] += STEP + len(rows) * IMAGE
        return batch(data, network, arm, rows, seed, epoch, number)

    def counted_validation(data: TrainingData, network: Network, start: int, stop: int) -> Tensor:
        now[0] += EPOCH + late.get(len(data), 0.0)  # few images are validated at once, once per epoch
        return validation(data, network, start, stop)

    def counted_views(frozen: FrozenBackbone, pixels: Tensor, wanted: Sequence[tuple[bytes, View]]) -> Tensor:
        now[0] += len(wanted) * VIEW
        return computed(frozen, pixels, wanted)

    monkeypatch.setattr(FrozenBackbone, "computed", counted_views)
    monkeypatch.setattr(TrainingData, "batch", counted_batch)
    monkeypatch.setattr(TrainingData, "validation", counted_validation)
    monkeypatch.setattr(timing, "work_clock", lambda on_gpu, threads: lambda: now[0])
    monkeypatch.setattr("shared.benchmark.SECONDS", 0.1)
    return late


@pytest.mark.usefixtures("late")
@pytest.mark.parametrize("trainable", ["head", "all"])
def test_epochs_steps_and_images_are_told_apart(trainable: str) -> None:
    arm = make_arm(classifier={"trainable": trainable})
    found = time_training(arm, 16, SCHEMA, Resources(device="cpu"))
    for part, seconds in ((found.epoch, EPOCH), (found.step, STEP), (found.image, IMAGE)):
        assert part == pytest.approx([seconds] * 3)
    if trainable == "head":
        assert found.view[1] == pytest.approx(VIEW)


def test_noise_of_short_epochs_is_not_taken_for_the_time_of_images(late: dict[int, float]) -> None:
    late[FEW] = -0.1 * EPOCH
    found = time_training(make_arm(), 16, SCHEMA, Resources(device="cpu"))
    assert found.image[1] == pytest.approx(IMAGE, rel=0.02)
