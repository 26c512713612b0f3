"""Tests how the values that a search found are set in an arm."""

from __future__ import annotations

import pytest

from shared.config.apply_parameters import apply_parameters
from shared.config.dataset import Rare
from shared.config.generation import Generate, ImageToImage
from shared.config.stages import Arm
from shared.config.training import Classifier, Training
from shared.errors import ConfigError

ARM = Arm(
    rare=Rare(),
    accept=None,
    classifier=Classifier(),
    augmentation="none",
    images="real",
    training=Training(),
    synthetic=None,
)


def test_values_are_set_by_path() -> None:
    found = apply_parameters(ARM, {"training.lr": 0.5, "augmentation": "soft"})
    assert found == ARM.model_copy(
        update={"augmentation": "soft", "training": ARM.training.model_copy(update={"lr": 0.5})}
    )


def test_what_an_arm_has_not_is_skipped() -> None:
    assert apply_parameters(ARM, {"generate.guidance": 3.0, "synthetic.share": 0.3, "accept.copy_quantile": 0.1}) == ARM
    making = ARM.model_copy(update={"generate": Generate(image_to_image=ImageToImage())})
    changed = apply_parameters(making, {"generate.guidance": 3.0, "generate.image_to_image.strength": 0.9}).generate
    assert changed == Generate(guidance=3.0, image_to_image=ImageToImage(strength=0.9))


def test_a_value_that_it_cannot_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.dropout: must be < 1, got 3\.0 from the search"):
        apply_parameters(ARM, {"training.dropout": 3.0})
    with pytest.raises(ConfigError, match=r"training\.nonsense"):
        apply_parameters(ARM, {"training.nonsense": 1})
