from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shared.classifier import frozen_features as cache_module
from shared.classifier import inputs as inputs_module
from shared.classifier.feature_cache import PAGE, FeatureCache
from shared.classifier.frozen_features import FrozenBackbone, View, in_own_order
from shared.classifier.inputs import FrozenFeatures, Pixels
from shared.classifier.model import build_trunk
from shared.classifier.precision import move_to
from shared.data.imageset import ImageSet
from tests.support.tiny_arms import make_arm

MakeOutputs = Callable[..., FrozenFeatures]
VIEWS = [View("hard", 0.5, number) for number in range(3)]
ROWS = np.array([59, 0, 17, 17, 33, 40, 8])
NUMBERS = np.array([2, 0, 1, 2, 0, 1, 1])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """180 outputs in ten blocks."""
    for module in (cache_module, inputs_module):
        monkeypatch.setattr(module, "BLOCK", 18)


@pytest.fixture
def outputs(device: torch.device) -> MakeOutputs:
    def outputs(images: ImageSet, budget: float, files: FeatureCache | None = None) -> FrozenFeatures:
        trunk = build_trunk(make_arm(classifier={"trainable": "layer4"}).classifier, 32)
        move_to(trunk.model, device)
        return FrozenFeatures(FrozenBackbone(trunk, device, files), images, VIEWS, budget, "images")

    return outputs


def assert_same(a: torch.Tensor, b: torch.Tensor) -> None:
    """To the bit on a CPU."""
    assert torch.equal(a, b) if a.device.type == "cpu" else torch.allclose(a, b, atol=1e-2, rtol=1e-2)


def test_pixels_beyond_the_budget_are_decoded_when_they_are_asked_for(train: ImageSet, device: torch.device) -> None:
    every, some, none = (Pixels(train, 32, budget, device) for budget in (1e9, 30.5 * 3 * 32**2, 0))
    assert [len(pixels.kept) for pixels in (every, some, none)] == [60, 30, 0]
    assert torch.equal(some.rows(ROWS).cpu(), every.rows(ROWS).cpu())
    assert torch.equal(none.rows(ROWS).cpu(), every.rows(ROWS).cpu())


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_outputs_beyond_the_budget_are_computed_with_the_same_augmentation(
    train: ImageSet, share: float, outputs: MakeOutputs
) -> None:
    every = outputs(train, 1e9)
    some = outputs(train, share * every.nbytes)
    assert some.nbytes <= share * every.nbytes
    assert_same(some.rows(ROWS, NUMBERS), every.rows(ROWS, NUMBERS))
    other = every.rows(ROWS, (NUMBERS + 1) % 3)
    assert not torch.allclose(some.rows(ROWS, NUMBERS), other, atol=1e-2, rtol=1e-2)


def test_outputs_beyond_the_budget_are_read_from_disk_where_they_are_there(
    train: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: MakeOutputs
) -> None:
    every = outputs(train, 1e9)
    some = outputs(train, 0.4 * every.nbytes, FeatureCache(tmp_path, 1e9))
    monkeypatch.setattr(FrozenBackbone, "computed", None)  # a computation would fail
    assert torch.equal(some.rows(ROWS, NUMBERS), every.rows(ROWS, NUMBERS))


def test_what_another_process_computed_ahead_is_not_computed_again(
    train: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: MakeOutputs
) -> None:
    seen = []
    computed = FrozenBackbone.computed

    def counted(self: FrozenBackbone, pixels: torch.Tensor, wanted: list[tuple[bytes, View]]) -> torch.Tensor:
        seen.append(len(wanted))
        return computed(self, pixels, wanted)

    monkeypatch.setattr(FrozenBackbone, "computed", counted)
    outputs(train, 0, FeatureCache(tmp_path, 1e9))
    assert sum(seen) == 180
    outputs(train, 0, FeatureCache(tmp_path, 1e9))
    assert sum(seen) == 180


def test_processes_that_start_together_have_orders_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []
    for number in (1, 2):
        monkeypatch.setattr(cache_module.os, "getpid", lambda number=number: number)
        orders.append(in_own_order(range(50)))
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(50))
    assert orders[0] != orders[1]


def test_memory_and_disk_hold_no_more_than_the_budget(train: ImageSet, tmp_path: Path, outputs: MakeOutputs) -> None:
    every = outputs(train, 1e9)
    budget, disk = 0.3 * every.nbytes, 40 * PAGE
    some = outputs(train, budget, FeatureCache(tmp_path, disk))
    assert some.nbytes <= budget
    assert 6 * PAGE < sum(path.stat().st_size for path in tmp_path.glob("outputs.sqlite*")) <= disk
    everything = np.repeat(np.arange(60), 3), np.tile(np.arange(3), 60)
    assert_same(some.rows(*everything), every.rows(*everything))
