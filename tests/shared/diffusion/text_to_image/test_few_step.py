from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

from shared.config.generation import StableDiffusionFinetune
from shared.diffusion.generator import BaseSource, SampleRequest
from shared.diffusion.text_to_image.base import find_base
from shared.diffusion.text_to_image.families.family import Family, find_family
from shared.diffusion.text_to_image.generator import TextToImage
from shared.diffusion.text_to_image.train import finetune_text_to_image
from shared.errors import DataError
from shared.settings import Settings
from shared.weights.inputs import FewStepAdapter
from tests.support.few_step import few_step_lora
from tests.support.tiny_pipeline import tiny_finetuning, tiny_images

Files = dict[str, Path]
Load = Callable[..., TextToImage]
RED_SQUARE, GREEN_STRIPE = np.array([1, 0, 1, 0], np.int8), np.array([0, 1, 0, 1], np.int8)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def family(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Family:
    return find_family(
        find_base(str(tiny_base), BaseSource(Settings.from_environment({}), tmp_path_factory.mktemp("scratch")))
    )


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Returns the files of a fine-tuning by LoRA."""
    out = tmp_path_factory.mktemp("lora")
    config = StableDiffusionFinetune(
        generator="stable-diffusion", base=str(tiny_base), method="lora", rank=4, resolution=32, steps=2, batch_size=2,
        learning_rate=0.02, warmup_steps=0, ema=0.0,
    )  # fmt: skip
    finetune_text_to_image(config, tiny_finetuning(out, BaseSource(Settings.from_environment({}), out), CPU))
    return {path.name: path for path in out.iterdir()}


@pytest.fixture
def load(source: BaseSource) -> Load:
    def loaded(files: Files, path: Path, scheduler: str = "lcm") -> TextToImage:
        return TextToImage.load(files, CPU, replace(source, few_step=FewStepAdapter("some/lora", path, scheduler)))

    return loaded


def draw(generator: TextToImage, *requests: SampleRequest) -> Any:
    return generator.sample(requests, generator.guidance, generator.steps)


@pytest.mark.parametrize("scheduler", ["lcm", "euler"])
def test_an_image_follows_from_its_seed(
    trained: Files, family: Family, load: Load, tmp_path: Path, scheduler: str
) -> None:
    """A consistency model draws noise in each step, which no other image of the batch and no earlier draw may change."""
    generator = load(trained, few_step_lora(family, tmp_path), scheduler)
    first = draw(generator, SampleRequest(RED_SQUARE, 1), SampleRequest(GREEN_STRIPE, 2))
    torch.manual_seed(11)
    second = draw(generator, SampleRequest(GREEN_STRIPE, 9), SampleRequest(GREEN_STRIPE, 2))
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[1], second[0])


def test_a_lora_in_the_form_of_kohya_is_the_same(trained: Files, family: Family, load: Load, tmp_path: Path) -> None:
    request = SampleRequest(RED_SQUARE, 1)
    one, other = (load(trained, few_step_lora(family, tmp_path, kohya)) for kohya in (False, True))
    np.testing.assert_array_equal(draw(one, request), draw(other, request))


def test_both_adapters_are_merged_into_the_weights(trained: Files, family: Family, load: Load, tmp_path: Path) -> None:
    apart, merged = (load(trained, few_step_lora(family, tmp_path)) for _ in range(2))
    model = merged._trained.load("unet", torch.float32, merge=True)
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    assert layers
    assert all(len(layer.merged_adapters) == 2 for layer in layers)
    merged._loaded = (model, merged._parts()[1])
    requests = [SampleRequest(RED_SQUARE, 1), SampleRequest(GREEN_STRIPE, 2)]
    assert np.abs(draw(apart, *requests).astype(int) - draw(merged, *requests)).max() <= 1


def test_it_is_beside_the_adapters_of_a_class(trained: Files, family: Family, load: Load, tmp_path: Path) -> None:
    path = few_step_lora(family, tmp_path)
    described = json.loads(trained["generator.json"].read_text())
    (tmp_path / "classes.json").write_text(json.dumps({**described, "adapters": ["colour/green"]}))
    of_class = load(
        {"generator.json": tmp_path / "classes.json", "lora-1.safetensors": trained["lora.safetensors"]}, path
    )
    nothing = tmp_path / "nothing.safetensors"
    save_file(
        {name: torch.zeros_like(tensor) for name, tensor in load_file(trained["lora.safetensors"]).items()}, nothing
    )
    without = load({**trained, "lora.safetensors": nothing}, path)
    green, red = SampleRequest(GREEN_STRIPE, 1), SampleRequest(RED_SQUARE, 1)
    np.testing.assert_array_equal(draw(of_class, green), draw(load(trained, path), green))
    np.testing.assert_array_equal(draw(of_class, red), draw(without, red))
    assert not np.array_equal(draw(of_class, green), draw(without, green))


def test_image_to_image_in_few_steps(trained: Files, family: Family, load: Load, tmp_path: Path) -> None:
    start = tiny_images().pixels(32)[0]
    for scheduler in ("lcm", "euler"):
        generator = load(trained, few_step_lora(family, tmp_path), scheduler)
        little, much = (draw(generator, SampleRequest(RED_SQUARE, 1, start, share)) for share in (0.25, 1.0))
        assert not np.array_equal(little, much)
        shares = generator._process.shares(generator._process.scheduler(4, scheduler))
        assert (shares.diff() < 0).all()
        # a strength of a generator that counts steps: half of four steps begin at the third
        assert generator.noise_share(0.5, 4) == pytest.approx(float(shares[2]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {f"{name}x": value for name, value in state.items()}, "does not fit the base"),
        (lambda state: {name: value[..., :3].contiguous() for name, value in state.items()}, "does not fit the base"),
        (
            lambda state: state | {"unet.mid_block.other.to_q.lora_A.weight": torch.ones(4, 4)},
            "'mid_block.other.to_q.lora_A.weight' and 0 more do not belong together",
        ),
        (
            lambda state: state | {"text_encoder.x.q_proj.lora_A.weight": torch.ones(4, 4)},
            "it changes a text encoder too, 'text_encoder.x.q_proj.lora_A.weight'",
        ),
    ],
)
def test_a_lora_of_another_model_is_refused(
    trained: Files, family: Family, load: Load, tmp_path: Path, change: Any, message: str
) -> None:
    path = few_step_lora(family, tmp_path)
    save_file(change(load_file(path)), tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=message) as error:
        load(trained, tmp_path / "other.safetensors")
    assert str(error.value).startswith("generate.few_step.adapter some/lora: ")


def test_a_file_that_holds_no_tensors_is_refused(trained: Files, load: Load, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("text")
    with pytest.raises(DataError, match="does not fit the base"):
        load(trained, tmp_path / "text.safetensors")
