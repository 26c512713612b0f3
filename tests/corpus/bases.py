"""Holds base models and the settings of the generators that fine-tune them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from jobs.cli.validate import base_lines
from shared.artifacts.folder import FolderStore
from shared.config.load import load_study
from shared.diffusion.text_to_image.base_files import TEXT_TO_IMAGE
from shared.settings import Settings
from shared.weights.digests import weight_digests
from tests.corpus.case import Case

STUDY = """\
name: corpus
verdict: none
dataset: {source: garments, resolution: 32}
rare: {below: 20}
finetune: {generator: text-to-image}
experiments: [{name: a, images: real+synthetic, search: {trials: 0}}]
"""


def _study(*sets: str) -> Callable[[Path], object]:
    """Returns an attempt that loads a study with `--set` values and describes its base."""

    def attempt(folder: Path) -> object:
        (folder / "study.yaml").write_text(STUDY)
        return "\n".join(base_lines(load_study(folder / "study.yaml", sets)))

    return attempt


def _pixel(*sets: str) -> Callable[[Path], object]:
    """Returns an attempt that loads a study of the pixel generator."""
    return _study("finetune={generator: pixel, resolution: 32}", *sets)


def _index(content: bytes | str | dict[str, object], *sets: str) -> Callable[[Path], object]:
    """Returns an attempt that describes a base in a folder with this model_index.json."""

    def attempt(folder: Path) -> object:
        (folder / "base").mkdir()
        text = json.dumps(content) if isinstance(content, dict) else content
        (folder / "base/model_index.json").write_bytes(text.encode() if isinstance(text, str) else text)
        return _study("finetune.base=base", *sets)(folder)

    return attempt


def _digests(*names: str) -> Callable[[Path], object]:
    """Returns an attempt that reads the digests of a base in a folder with these files."""

    def attempt(folder: Path) -> object:
        for name in names:
            (folder / "base" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "base" / name).write_bytes(name.encode())
        (folder / "base").mkdir(exist_ok=True)
        (folder / "study.yaml").write_text(STUDY)
        study = load_study(folder / "study.yaml", ["finetune.base=base"])
        found = weight_digests(study, Settings.from_environment({}), FolderStore(folder / "kept"))
        return f"{len(found)} {TEXT_TO_IMAGE.choose(names)}"

    return attempt


def _named(pipeline: object) -> dict[str, object]:
    return {"_class_name": pipeline}


NO_FAMILY = "of no family that can be fine-tuned"
CASES = [
    Case("no base is the default one", _study(), 0, ("stable-diffusion-v1-5", "CreativeML", "open")),
    Case(
        "a gated base",
        _study("finetune.base=stabilityai/stable-diffusion-3.5-large"),
        0,
        ("Stable Diffusion 3.5", "gated: HF_TOKEN is needed", "guidance 4.5, 28 steps", "bf16"),
    ),
    Case("an open base", _study("finetune.base=Tongyi-MAI/Z-Image"), 0, ("Apache-2.0, open", "multiples of 16")),
    Case(
        "guidance that is set",
        _study("finetune.base=Tongyi-MAI/Z-Image", "generate.guidance=2"),
        0,
        ("guidance 2, 50 steps",),
    ),
    Case("a base that is not listed", _study("finetune.base=some/model"), 0, ("is not listed", "when it is read")),
    Case("a base in a bucket", _study("finetune.base=s3://bucket/base"), 0, ("s3://bucket/base", "when it is read")),
    Case("a folder of Stable Diffusion XL", _index(_named("StableDiffusionXLPipeline")), 0, ("Stable Diffusion XL",)),
    Case("an inpainting pipeline", _index(_named("StableDiffusionInpaintPipeline")), 2, (NO_FAMILY, "did you mean")),
    Case("a pipeline for image-to-image", _index(_named("ZImageImg2ImgPipeline")), 2, (NO_FAMILY, "ZImagePipeline")),
    Case("FLUX.1", _index(_named("FluxPipeline")), 2, (NO_FAMILY, "FluxPipeline")),
    Case("a pipeline of the user's own code", _index(_named(["own", "Pipeline"])), 2, (NO_FAMILY,)),
    Case("a name of a thousand characters", _index(_named("x" * 1000)), 2, (NO_FAMILY,)),
    Case("a name with line breaks", _index(_named("a\nb")), 2, (NO_FAMILY, r"a\nb")),
    Case("no name of a pipeline", _index({}), 2, (NO_FAMILY, "None")),
    Case("an index that is a list", _index("[1, 2]"), 2, (NO_FAMILY,)),
    Case("an index that is empty", _index(b""), 2, ("is no JSON",)),
    Case("an index that is cut", _index('{"_class_name": "ZIm'), 2, ("is no JSON",)),
    Case("an index that is no text", _index(b"\xff\xfe\x00"), 2, ("is no JSON",)),
    Case("an index with a byte-order mark", _index(b'\xef\xbb\xbf{"_class_name": "ZImagePipeline"}'), 0, ("Z-Image",)),
    Case("an index of nested lists", _index("[" * 100_000), 2, ("is no JSON",)),
    Case("a folder without a model", _digests(), 2, ("finetune.base", "holds no model", "text-to-image")),
    Case("a folder of files of other names", _digests("README.md", "v1.ckpt"), 2, ("holds no model",)),
    Case(
        "shards with their index",
        _digests(
            "model_index.json",
            "transformer/diffusion_pytorch_model.safetensors.index.json",
            "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
            "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
        ),
        0,
        ("1 ", "safetensors.index.json", "-00001-of-00002.safetensors", "-00002-of-00002.safetensors"),
    ),
    Case(
        "a variant beside whole weights",
        _digests("vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors"),
        0,
        ("vae/diffusion_pytorch_model.safetensors",),
        ("fp16",),
    ),
    Case("a resolution between multiples", _study("finetune.resolution=100"), 2, ("finetune.resolution", "100")),
    Case("a resolution of zero", _study("finetune.resolution=0"), 2, ("finetune.resolution",)),
    Case("a precision that is none", _study("finetune.precision=fp8"), 2, ("finetune.precision", "fp8")),
    Case("a text encoder to train", _study("finetune.text_encoder=true"), 2, ("text_encoder",)),
    Case("a rank of zero", _study("finetune.rank=0"), 2, ("finetune.rank",)),
    Case("a guidance below zero", _study("generate.guidance=-1"), 2, ("generate.guidance", "-1")),
    Case("no steps", _study("generate.steps=0"), 2, ("generate.steps",)),
    Case("a negative prompt without text", _pixel("generate.negative_prompt=blurred"), 2, ("no meaning", "pixel")),
    Case("prompts without text", _pixel("generate.prompts=['a {labels}']"), 2, ("generate.prompts", "pixel")),
    Case("prompts that are one text", _study("generate.prompts=a photo"), 2, ("generate.prompts",)),
    Case("an interval that ends first", _study("generate.guidance_interval=[0.8, 0.2]"), 2, ("must be below", "0.8")),
    Case("an interval of one point", _study("generate.guidance_interval=[0.5, 0.5]"), 2, ("must be below",)),
    Case(
        "an interval beyond the steps", _study("generate.guidance_interval=[0, 5]"), 2, ("generate.guidance_interval",)
    ),
    Case("an interval", _study("generate.guidance_interval=[0.2, 0.8]"), 0, ("base ",)),
    Case("a generator by its old package", _study("finetune={generator: stable_diffusion}"), 2, ("stable_diffusion",)),
]
