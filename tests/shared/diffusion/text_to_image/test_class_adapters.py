from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from shared.artifacts.checkpoints import Checkpoints
from shared.config.generation import PixelFinetune, StableDiffusionFinetune
from shared.config.seeds import hashed_seed
from shared.data.imageset import ImageSet
from shared.diffusion.generator import BaseSource, SampleRequest
from shared.diffusion.text_to_image.class_adapters import by_rarity
from shared.diffusion.text_to_image.generator import TextToImage
from shared.diffusion.text_to_image.train import finetune_text_to_image
from shared.errors import ConfigError
from shared.settings import Settings
from tests.support.checkpoints import FolderCheckpoints
from tests.support.tiny_pipeline import tiny_finetuning, tiny_images

RARE = np.array([1, 3])
GREEN, STRIPE = (f"lora-{column}.safetensors" for column in RARE)
GREEN_SQUARE, RED_STRIPE = np.array([0, 1, 1, 0], np.int8), np.array([1, 0, 0, 1], np.int8)
RED_SQUARE = np.array([1, 0, 1, 0], np.int8)
STEPS = 6


class Killed(Exception):
    """Ends a training as a kill would, right after a checkpoint."""


class KillAt(FolderCheckpoints):
    """Ends the training after so many checkpoints."""

    def __init__(self, folder: Path, last: int) -> None:
        super().__init__(folder)
        self.left = last

    def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
        super().save(files, **values)
        self.left -= 1
        if self.left == 0:
            raise Killed


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """Returns images of which fewer are green than striped."""
    found = tiny_images()
    assert 0 < (found.labels[:, 1] == 1).sum() < (found.labels[:, 3] == 1).sum()
    return found


@pytest.fixture
def train(tiny_base: Path, images: ImageSet, tmp_path: Path) -> Any:
    """Fine-tunes on a CPU, where equal trainings give equal bytes, and returns the files by name with the curve."""

    def call(
        name: str, checkpoints: Checkpoints | None = None, **changes: Any
    ) -> tuple[dict[str, Path], list[dict[str, float]]]:
        out = tmp_path / name
        source = BaseSource(Settings.from_environment({}), tmp_path)
        plain = tiny_finetuning(out, source, torch.device("cpu"), seed=changes.pop("seed", 5))
        finetuning = replace(plain, images=changes.pop("images", images), rare=RARE)
        if checkpoints is not None:
            finetuning = replace(finetuning, checkpoints=checkpoints)
        config = StableDiffusionFinetune.model_validate({
            "generator": "stable-diffusion", "base": str(tiny_base), "method": "lora", "rank": 2, "resolution": 32, "steps": STEPS, "batch_size": 2,
            "learning_rate": 0.02, "warmup_steps": 0, "checkpoint_every": 2, "per_class": True, **changes,
        })  # fmt: skip
        curve = finetune_text_to_image(config, finetuning)
        return {path.name: path for path in out.iterdir()}, curve

    return call


def equal(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_each_class_has_what_a_training_on_its_images_alone_gives(train: Any, images: ImageSet) -> None:
    files, curve = train("classes")
    assert sorted(files) == ["curve.json", "generator.json", GREEN, STRIPE]
    assert json.loads(files["generator.json"].read_text())["adapters"] == ["colour/green", "shape/v_stripe"]
    assert [point["step"] for point in curve] == list(range(1, 2 * STEPS + 1))
    assert [point["seconds"] for point in curve] == sorted(point["seconds"] for point in curve)
    for column, name in ((1, GREEN), (3, STRIPE)):
        seed = hashed_seed("adapters", 5, images.schema.class_names[column])
        own = images.take(np.flatnonzero(images.labels[:, column] == 1))
        alone, _ = train(f"alone-{column}", per_class=False, images=own, seed=seed)
        assert equal(alone["lora.safetensors"], files[name])
    assert not equal(files[GREEN], files[STRIPE])


@pytest.mark.parametrize("kill_at", [1, 3, 4])
def test_a_killed_training_goes_on_in_the_class_of_its_checkpoint(train: Any, tmp_path: Path, kill_at: int) -> None:
    """Kills it within the first class, between both, and within the second: a class has checkpoints at steps 2 and 4 and at its end."""
    whole, curve = train("whole")
    checkpoints = KillAt(tmp_path / "kept", kill_at)
    with pytest.raises(Killed):
        train("killed", checkpoints)
    resumed, resumed_curve = train("resumed", checkpoints)
    assert all(equal(whole[name], resumed[name]) for name in (GREEN, STRIPE))
    assert [p["loss"] for p in resumed_curve] == [p["loss"] for p in curve]


def test_an_image_is_drawn_with_the_adapters_of_its_rarest_class(train: Any, tiny_base: Path, tmp_path: Path) -> None:
    files, _ = train("classes")
    source = BaseSource(Settings.from_environment({}), tmp_path)
    described = json.loads(files["generator.json"].read_text())
    del described["adapters"]
    (tmp_path / "one.json").write_text(json.dumps(described))
    nothing = tmp_path / "nothing.safetensors"
    save_file({name: torch.zeros_like(tensor) for name, tensor in load_file(files[GREEN]).items()}, nothing)

    def alone(adapters: Path) -> TextToImage:
        return TextToImage.load(
            {"generator.json": tmp_path / "one.json", "lora.safetensors": adapters}, torch.device("cpu"), source
        )

    generator = TextToImage.load(files, torch.device("cpu"), source)
    both = np.array([0, 1, 0, 1], np.int8)
    labels = [RED_STRIPE, GREEN_SQUARE, RED_SQUARE, both]
    drawn = [generator.sample([SampleRequest(each, 3)], 2.0, 3)[0] for each in labels]
    expected = [files[STRIPE], files[GREEN], nothing, files[GREEN]]
    for each, image, adapters in zip(labels, drawn, expected, strict=True):
        np.testing.assert_array_equal(image, alone(adapters).sample([SampleRequest(each, 3)], 2.0, 3)[0])
    together = generator.sample([SampleRequest(each, 3) for each in labels[:3]], 2.0, 3)
    np.testing.assert_array_equal(together, np.stack(drawn[:3]))


def test_adapters_per_class_need_lora_and_a_rare_class(images: ImageSet) -> None:
    for values, message in (
        ({"method": "full"}, "needs method: lora"),
        ({"method": "lora", "text_encoder": True}, "text_encoder: false"),
    ):
        with pytest.raises(ValidationError, match=message):
            StableDiffusionFinetune(generator="stable-diffusion", per_class=True, **values)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no training image has a rare class"):
        by_rarity(images, np.array([], np.int64))


def test_steps_are_counted_per_class() -> None:
    per_class = StableDiffusionFinetune(generator="stable-diffusion", method="lora", per_class=True)
    shared = per_class.model_copy(update={"per_class": False})
    assert [each.trainings(5) for each in (per_class, shared, PixelFinetune(generator="pixel"))] == [5, 1, 1]
    assert "per_class" not in shared.model_dump()  # so that no key changes
