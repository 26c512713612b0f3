from __future__ import annotations

import numpy as np
import pytest
import torch

from shared.classifier.frozen_features import UNAUGMENTED, FrozenBackbone, View, decoded, image_digests, told_apart
from shared.classifier.inputs import FrozenFeatures
from shared.classifier.model import build_trunk
from shared.config.training import Classifier
from tests.support.tiny_arms import make_images

CPU = torch.device("cpu")
N = 40


@pytest.mark.parametrize(
    ("model", "trainable", "resolution"),
    [
        ("test_resnet", "head", 32),  # pooled features in float32
        ("test_resnet", "layer4", 32),  # activations in float16
        ("resnet18", "head", 96),
        ("tf_efficientnet_lite0", "head", 64),
        ("tf_efficientnet_lite0", "blocks.6", 64),
        ("test_vit", "head", 96),
        ("test_vit", "blocks.5", 96),
        ("vit_tiny_patch16_224", "blocks.11", 224),
        ("eva02_tiny_patch14_224", "head", 112),
    ],
)
def test_an_output_depends_neither_on_its_place_nor_on_other_images(
    model: str, trainable: str, resolution: int
) -> None:
    trunk = build_trunk(Classifier(model=model, pretrained=False, trainable=trainable), resolution)
    frozen = FrozenBackbone(trunk, CPU, None)
    n = N if resolution < 200 else 12
    images = make_images(n, side=resolution)
    pixels, digests = torch.from_numpy(decoded(images, resolution)), image_digests(images)
    wanted = [(digest, View("hard", 0.5, i % 3) if i % 4 else UNAUGMENTED) for i, digest in enumerate(digests)]
    every = frozen.computed(pixels, wanted)
    assert every.dtype == (torch.float32 if trainable == "head" else torch.float16)
    rng = np.random.default_rng(0)
    for size in (1, 3, n // 2, n):
        rows = rng.permutation(n)[:size]
        again = frozen.computed(pixels[torch.from_numpy(rows)], [wanted[i] for i in rows])
        assert torch.equal(again, every[torch.from_numpy(rows)])


def test_copies_of_an_image_have_random_views_of_their_own() -> None:
    a, b = b"a", b"b"
    apart = told_apart([a, b, a, a])
    assert apart[:2] == [a, b]
    assert len(set(apart)) == 4
    assert told_apart([a, a, b])[1] == apart[2]  # whatever comes between
    images = make_images(3)
    copies = images.take(np.array([0, 1, 0]))
    trunk = build_trunk(Classifier(model="test_resnet", pretrained=False, trainable="head"), 32)
    for view, equal in ((View("soft"), False), (View("basic", number=1), True), (UNAUGMENTED, True)):
        features = FrozenFeatures(FrozenBackbone(trunk, CPU, None), copies, [view], 1e9, "images")
        first, second, third = features.rows(np.arange(3), np.zeros(3, np.int64))
        assert torch.equal(first, third) == equal
        assert not torch.equal(first, second)


def test_views_differ() -> None:
    images = make_images(2)
    pixels, digest = torch.from_numpy(decoded(images, 32)), image_digests(images)[0]
    trunk = build_trunk(Classifier(model="test_resnet", pretrained=False, trainable="head"), 32)
    outputs = FrozenBackbone(trunk, CPU, None).computed(
        pixels[[0] * 4], [(digest, View("soft", 0.0, i)) for i in range(4)]
    )
    assert all(not torch.equal(outputs[i], outputs[j]) for i in range(4) for j in range(i))
