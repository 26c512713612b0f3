"""Tests which files of a base are read, by their names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel

from shared.diffusion.generator import BaseSource
from shared.diffusion.text_to_image.base import find_base, load_part
from shared.diffusion.text_to_image.base_files import STABLE_DIFFUSION, TEXT_TO_IMAGE, weights_files
from shared.errors import DataError

STEM = "unet/diffusion_pytorch_model"


@pytest.mark.parametrize(
    ("there", "read"),
    [
        (["safetensors", "fp16.safetensors", "safetensors.index.json"], ["safetensors"]),
        (["fp16.safetensors", "bf16.safetensors", "non_ema.safetensors"], ["bf16.safetensors"]),
        (["fp16.safetensors", "bin"], []),  # the pickle is converted
        (
            [
                "safetensors.index.json",
                "-00001-of-00002.safetensors",
                "-00002-of-00002.safetensors",
                "fp16.safetensors",
            ],
            ["safetensors.index.json", "-00001-of-00002.safetensors", "-00002-of-00002.safetensors"],
        ),
        (["safetensors.index.json", "-00001-of-00002.safetensors"], []),  # a shard is missing
        (["-00001-of-00001.safetensors"], []),  # the index is missing
        (
            ["safetensors.index.fp16.json", "fp16-00001-of-00001.safetensors", "-00001-of-00001.safetensors"],
            ["safetensors.index.fp16.json", "fp16-00001-of-00001.safetensors"],
        ),
        (
            ["safetensors.index.fp16.json", "-00001-of-00001.fp16.safetensors"],
            ["safetensors.index.fp16.json", "-00001-of-00001.fp16.safetensors"],
        ),
        (["safetensors.index.json", "x-00001-of-00001.safetensors"], []),
    ],
)
def test_the_weights_of_a_part(there: list[str], read: list[str]) -> None:
    def path(name: str) -> str:
        return f"{STEM}{'' if name.startswith('-') else '.'}{name}"

    assert weights_files("unet", [path(name) for name in there]) == [path(name) for name in read]


def test_files_outside_of_the_parts_are_not_read() -> None:
    parts = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
    names = [f"{part}/{name}" for part in parts for name in ("config.json", "diffusion_pytorch_model.safetensors")]
    names += ["text_encoder/model.safetensors", "tokenizer/tokenizer.json", "scheduler/scheduler_config.json"]
    extra = ["whole.safetensors", "safety_checker/model.safetensors", "README.md", "transformer/a/config.json"]
    read = TEXT_TO_IMAGE.choose([*names, *extra, "model_index.json"])
    assert read[0] == "model_index.json"
    assert set(read).isdisjoint(extra)
    assert TEXT_TO_IMAGE.missing(read) == []
    assert TEXT_TO_IMAGE.missing(names)[0] == "model_index.json"
    assert "model_index.json" not in STABLE_DIFFUSION.choose([*names, "model_index.json"])


@pytest.mark.parametrize("variant", [None, "fp16", "bf16"])
@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_shards_and_variants_are_loaded(
    tiny_base: Path, source: BaseSource, tmp_path: Path, part: str, variant: str | None
) -> None:
    kind = {"unet": UNet2DConditionModel, "text_encoder": CLIPTextModel}[part]
    model = kind.from_pretrained(tiny_base / part)
    if variant is not None:
        model.to({"fp16": torch.float16, "bf16": torch.bfloat16}[variant])
    how = {"variant": variant} if variant else {}
    model.save_pretrained(tmp_path / part, max_shard_size="50KB", safe_serialization=True, **how)
    base = find_base(str(tmp_path), source)
    files = base.weights(part)
    assert len(files) > 2
    assert ".index." in files[0]
    assert set(base.digests([part])) == {f"{part}/config.json", *files}
    loaded = load_part(base, part, kind.__name__)
    wanted = model.float().state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in loaded.state_dict().items())
    shards = json.loads((tmp_path / files[0]).read_text())
    shards["weight_map"]["more"] = "../elsewhere.safetensors"
    (tmp_path / files[0]).write_text(json.dumps(shards))
    with pytest.raises(DataError, match=r"names .*/\.\./elsewhere\.safetensors, which is not there"):
        load_part(base, part, kind.__name__)
    (tmp_path / files[1]).unlink()
    with pytest.raises(DataError, match="of which one or the index is missing"):
        load_part(base, part, kind.__name__)
