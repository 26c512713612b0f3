from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shared.classifier.data import TrainingData
from shared.classifier.fit import new_network
from shared.classifier.frozen_features import UNAUGMENTED, FrozenBackbone, View
from shared.classifier.inputs import FrozenFeatures, Pixels
from shared.classifier.model import build_trunk
from shared.classifier.runtime import Runtime
from shared.classifier.training_set import effective_training_set
from shared.config.search import Resources
from shared.config.stages import Arm
from shared.config.training import LABEL_POWER
from shared.data.imageset import ImageSet
from shared.errors import ConfigError, DataError, Stopped
from shared.stop import StopSignal
from tests.support.tiny_arms import make_arm, make_images

Build = Callable[..., TrainingData]
RARE = np.array([2])


@pytest.fixture
def build(device: torch.device) -> Build:
    def build(arm: Arm, train: ImageSet, val: ImageSet, **options: Any) -> TrainingData:
        training = effective_training_set(arm, train, None, None, RARE)
        return TrainingData.build(arm, training, val, RARE, Runtime(device, Resources(), **options))

    return build


@pytest.mark.parametrize(
    ("changes", "shape", "kind"),
    [
        ({"classifier": {"trainable": "all"}}, (60, 3, 32, 32), Pixels),
        ({"classifier": {"trainable": "head"}}, (60, 1, 96), FrozenFeatures),
        ({"classifier": {"trainable": "layer4"}}, (60, 1, 192, 2, 2), FrozenFeatures),
        ({"classifier": {"trainable": "head"}, "augmentation": "soft"}, (60, 8, 96), FrozenFeatures),
        ({"classifier": {"trainable": "head"}, "augmentation": "basic"}, (60, 2, 96), FrozenFeatures),
        ({"augmentation": "soft"}, (60, 3, 32, 32), Pixels),
        (
            {"classifier": {"trainable": "head"}, "augmentation": "soft", "training": {"views": "fresh"}},
            (60, 3, 32, 32),
            Pixels,
        ),
        (
            {"classifier": {"trainable": "head"}, "augmentation": "soft", "training": {"views": 3}},
            (60, 3, 96),
            FrozenFeatures,
        ),
        ({"classifier": {"trainable": "head"}, "training": {"erasing": 0.5}}, (60, 8, 96), FrozenFeatures),
    ],
)
def test_what_is_kept(
    train: ImageSet, val: ImageSet, changes: dict[str, object], shape: tuple[int, ...], kind: type, build: Build
) -> None:
    data = build(make_arm(**changes), train, val)
    assert tuple(data.inputs.kept.shape) == shape
    assert isinstance(data.inputs, kind)


def test_kept_outputs_are_what_the_network_computes(
    train: ImageSet, val: ImageSet, build: Build, device: torch.device
) -> None:
    # a GPU convolves in bfloat16, in an order that depends on the batch size
    near = 1e-4 if device.type == "cpu" else 2e-2
    arm = make_arm(classifier={"trainable": "head"})
    fresh = make_arm(classifier={"trainable": "head"}, augmentation="basic", training={"views": "fresh"})
    kept, pixels = build(arm, train, val), build(fresh, train, val)
    network = new_network(arm, kept, 0).eval()
    rows = np.array([5, 3, 40])
    assert torch.allclose(kept.batch(network, arm, rows, 0, 0, 0), pixels.unaugmented(network, rows).float(), atol=near)
    mirrored = build(
        make_arm(classifier={"trainable": "head"}, augmentation="basic", training={"views": 2}), train, val
    )
    assert torch.allclose(mirrored.inputs.kept[:, 0], kept.inputs.kept[:, 0], atol=near)
    assert not torch.allclose(mirrored.inputs.kept[:, 1], kept.inputs.kept[:, 0], atol=near)


@pytest.mark.parametrize("refit", [0, 2])
def test_the_refit_sees_the_images_themselves(train: ImageSet, val: ImageSet, build: Build, refit: int) -> None:
    def data(**changes: dict[str, object] | str) -> TrainingData:
        return build(make_arm(classifier={"trainable": "head"}, **changes), train, val)

    arm = make_arm(classifier={"trainable": "head"}, augmentation="hard", training={"refit_epochs": refit})
    augmented, plain = data(augmentation="hard", training={"refit_epochs": refit}), data()
    network, rows = new_network(arm, augmented, 0).eval(), np.arange(40)
    wanted = plain.unaugmented(network, rows)
    assert torch.allclose(augmented.unaugmented(network, rows), wanted, atol=2e-2) == (refit > 0)
    for number in range(5):
        batch = augmented.batch(network, arm, rows, 0, 0, number)
        assert not (batch - wanted).flatten(1).abs().amax(1).lt(1e-3).any()  # the image itself is not drawn


def test_which_arms_it_serves(train: ImageSet, val: ImageSet, build: Build) -> None:
    data = build(make_arm(classifier={"trainable": "head"}), train, val)
    assert data.matches(make_arm(classifier={"trainable": "head", "head": [8, 8]}, training={"lr": 0.1, "mixup": 1.0}))
    assert not data.matches(make_arm(classifier={"trainable": "layer4"}))
    assert not data.matches(make_arm(classifier={"trainable": "head"}, augmentation="basic"))
    fresh = build(make_arm(augmentation="basic"), train, val)
    assert fresh.matches(make_arm(augmentation="hard", training={"erasing": 0.3}))


def test_views_need_a_frozen_part(train: ImageSet, val: ImageSet, build: Build) -> None:
    with pytest.raises(ConfigError, match=r"training\.views: 2 views cannot be kept"):
        build(make_arm(training={"views": 2}), train, val)


def test_an_empty_set_is_a_data_error(train: ImageSet, build: Build) -> None:
    with pytest.raises(DataError, match="validation set has no images"):
        build(make_arm(), train, train.take(np.arange(0)))


def test_outputs_are_computed_once_on_a_node(
    train: ImageSet, val: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Build
) -> None:
    arm = make_arm(classifier={"trainable": "head"}, augmentation="hard", training={"views": 2, "erasing": 0.5})
    first = build(arm, train, val, cache=tmp_path)
    monkeypatch.setattr(FrozenBackbone, "computed", None)  # a second computation would fail
    second = build(arm, train, val, cache=tmp_path)
    assert torch.equal(first.inputs.kept, second.inputs.kept)
    fold = np.arange(60)[
        ::-2
    ].copy()  # as a judge has them: some of the images in another order, and the others as validation
    third = build(arm, train.take(fold), val, cache=tmp_path)
    assert torch.equal(first.inputs.kept[fold], third.inputs.kept)
    monkeypatch.undo()
    for file in tmp_path.glob("outputs.sqlite"):
        file.write_bytes(file.read_bytes()[:100])
    fourth = build(arm, train, val, cache=tmp_path)
    assert torch.equal(first.inputs.kept, fourth.inputs.kept)


def test_only_images_that_are_new_are_computed(
    train: ImageSet, val: ImageSet, generated: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Build
) -> None:
    arm = make_arm(classifier={"trainable": "head"}, augmentation="soft")
    build(arm, train, val, cache=tmp_path)
    both = ImageSet(train.schema, [*generated.encoded, *train.encoded], [*generated.paths, *train.paths],
                    np.r_[generated.split, train.split], np.r_[generated.labels, train.labels])  # fmt: skip
    alone = build(arm, both, val)
    counted: list[int] = []
    computed = FrozenBackbone.computed

    def counting(self: FrozenBackbone, pixels: torch.Tensor, wanted: Any) -> torch.Tensor:
        counted.append(len(pixels))
        return computed(self, pixels, wanted)

    monkeypatch.setattr(FrozenBackbone, "computed", counting)
    data = build(arm, both, val, cache=tmp_path)
    assert sum(counted) == 20 * 8
    if data.device.type == "cpu":
        assert torch.equal(data.inputs.kept, alone.inputs.kept)


def test_keys_depend_on_weights_image_and_view(device: torch.device) -> None:
    arm = make_arm(classifier={"trainable": "head"})
    parts = [FrozenBackbone(build_trunk(arm.classifier, 32, seed), device, None) for seed in (0, 1)]
    keys = {
        parts[0].key(b"one", UNAUGMENTED),
        parts[1].key(b"one", UNAUGMENTED),
        parts[0].key(b"other", UNAUGMENTED),
        parts[0].key(b"one", View("basic")),
        parts[0].key(b"one", View("basic", number=1)),
    }
    assert len(keys) == 5
    assert FrozenBackbone(build_trunk(arm.classifier, 32, 0), device, None).key(b"one", UNAUGMENTED) in keys


def test_a_signal_ends_the_computation_between_blocks(
    train: ImageSet, val: ImageSet, tmp_path: Path, build: Build
) -> None:
    stop = StopSignal()
    stop.set()
    with pytest.raises(Stopped):
        build(make_arm(classifier={"trainable": "head"}), train, val, cache=tmp_path, stop=stop)


def test_counts_of_labels_that_count(build: Build) -> None:
    images = make_images(10)
    data = build(make_arm(), images, images)
    counts = data.counts(LABEL_POWER)
    assert counts.positive[:3].sum() == 9  # one image's colour is unknown
    assert counts.known.tolist() == [9, 9, 9, 10, 9]
