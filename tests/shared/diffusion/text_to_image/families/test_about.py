from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.config.generation import FewStep, Generate, StableDiffusionFinetune, TextToImageFinetune
from shared.diffusion.text_to_image.families.about import about_base
from shared.diffusion.text_to_image.families.table import KNOWN, family_of_index
from shared.errors import DataError

UNSET = Generate(guidance=None, steps=None)


def text_to_image(**values: Any) -> TextToImageFinetune:
    return TextToImageFinetune(generator="text-to-image", **values)


def test_a_known_base_and_what_follows_from_it() -> None:
    assert about_base(text_to_image(base="Tongyi-MAI/Z-Image", method="lora"), UNSET) == (
        "base Tongyi-MAI/Z-Image: Z-Image; licence Apache-2.0, open; images of 1024 pixels (of multiples of 16), guidance 5, 50 steps, "
        "bf16, LoRA on to_k, to_q, to_v, to_out.0"
    )
    own = text_to_image(base="stabilityai/stable-diffusion-3.5-medium", resolution=512, precision="fp32")
    line = about_base(own, Generate(guidance=3.0, steps=9))
    assert "Community" in line
    assert "gated: HF_TOKEN is needed" in line
    assert "images of 512 pixels (of multiples of 16), guidance 3, 9 steps, fp32, all weights are trained" in line


def test_stable_diffusion_has_the_settings_of_its_section() -> None:
    line = about_base(StableDiffusionFinetune(generator="stable-diffusion"), Generate())
    assert "CreativeML Open RAIL-M, open; images of 512 pixels (of multiples of 64), guidance 2, 25 steps, bf16" in line


def test_a_lora_for_few_steps_and_what_follows_from_it() -> None:
    few = FewStep(adapter="latent-consistency/lcm-lora-sdxl", revision="c0ffee00c0ffee00")
    generate = Generate(guidance=None, steps=None, few_step=few)
    line = about_base(text_to_image(base="stabilityai/stable-diffusion-xl-base-1.0"), generate)
    assert "guidance 1, 4 steps" in line
    assert line.endswith(
        "; drawn in few steps by the LoRA latent-consistency/lcm-lora-sdxl@c0ffee00 (pytorch_lora_weights.safetensors) and the scheduler lcm; "
        "read its licence too"
    )
    own = generate.model_copy(update={"steps": 8, "guidance": 1.5})
    assert "guidance 1.5, 8 steps" in about_base(text_to_image(base="Tongyi-MAI/Z-Image"), own)
    assert "LoRA lcm.safetensors and the" in about_base(
        text_to_image(base="some/model"), generate.model_copy(update={"few_step": FewStep(adapter="lcm.safetensors")})
    )


def test_a_base_that_is_not_listed(tmp_path: Path) -> None:
    said = about_base(text_to_image(base="some/model"), UNSET)
    assert "its licence is not listed here" in said
    assert "is found when it is read" in said
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "Flux2KleinPipeline"}))
    assert ": FLUX.2-klein-base; " in about_base(text_to_image(base=str(tmp_path)), UNSET)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(DataError, match=r"names the pipeline 'FluxPipeline' \(did you mean Flux2KleinPipeline\?\)"):
        about_base(text_to_image(base=str(tmp_path)), UNSET)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b'{"_class_name": 3}', b'{"_class_name": ["a"]}'])
def test_an_index_that_says_nothing(content: bytes) -> None:
    with pytest.raises(DataError, match=r"^finetune.base some/model: model_index.json ") as error:
        family_of_index(content, "some/model")
    assert "\n" not in str(error.value)


def test_each_listed_base_has_a_line() -> None:
    for name in KNOWN:
        assert about_base(text_to_image(base=name), UNSET).startswith(f"base {name}: ")
