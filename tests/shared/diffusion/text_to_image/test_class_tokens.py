from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from shared.artifacts.checkpoints import Checkpoints
from shared.config.generation import StableDiffusionFinetune
from shared.diffusion.generator import BaseSource, SampleRequest
from shared.diffusion.text_to_image.class_tokens import ExtendedEmbedding
from shared.diffusion.text_to_image.generator import TextToImage
from shared.diffusion.text_to_image.train import finetune_text_to_image
from shared.errors import ConfigError, DataError
from shared.settings import Settings
from tests.support.checkpoints import FolderCheckpoints
from tests.support.tiny_pipeline import tiny_finetuning, tiny_images

RARE = np.array([1, 3])
COUNT = 2
GREEN, STRIPE = "tokens-1.safetensors", "tokens-3.safetensors"
RED_SQUARE, GREEN_SQUARE = np.array([1, 0, 1, 0], np.int8), np.array([0, 1, 1, 0], np.int8)


class Killed(Exception):
    """Ends a training as a kill would, right after a checkpoint."""


class KillAtFirst(FolderCheckpoints):
    """Ends the training after its first checkpoint."""

    def save(self, files: Mapping[str, Path], **values: int | float | str) -> None:
        first = self.load() is None
        super().save(files, **values)
        if first:
            raise Killed


@pytest.fixture
def train(tiny_base: Path, tmp_path: Path) -> Any:
    """Fine-tunes on a CPU, where equal trainings give equal bytes, and returns the files by name."""

    def call(name: str, checkpoints: Checkpoints | None = None, rare: Any = RARE, **changes: Any) -> dict[str, Path]:
        out = tmp_path / name
        plain = tiny_finetuning(out, BaseSource(Settings.from_environment({}), tmp_path), torch.device("cpu"), seed=5)
        finetuning = replace(plain, rare=rare)
        if checkpoints is not None:
            finetuning = replace(finetuning, checkpoints=checkpoints)
        config = StableDiffusionFinetune.model_validate({
            "generator": "stable-diffusion", "base": str(tiny_base), "method": "lora", "rank": 2, "resolution": 32, "steps": 4, "batch_size": 4,
            "learning_rate": 0.001, "warmup_steps": 0, "checkpoint_every": 2, "condition_dropout": 0, "ema": 0, "phrases": {"colour/green": "leafy"},
            "class_tokens": COUNT, "class_tokens_learning_rate": 0.01, **changes,
        })  # fmt: skip
        finetune_text_to_image(config, finetuning)
        return {path.name: path for path in out.iterdir()}

    return call


def load(files: Mapping[str, Path], folder: Path) -> TextToImage:
    return TextToImage.load(files, torch.device("cpu"), BaseSource(Settings.from_environment({}), folder))


def known_embeddings(base: Path) -> torch.Tensor:
    return CLIPTextModel.from_pretrained(base / "text_encoder").get_input_embeddings().weight.detach()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_only_the_embeddings_of_the_tokens_are_trained_beside_the_denoiser(
    train: Any, tiny_base: Path, method: str
) -> None:
    files = train("out", method=method)
    weights = {"full": "unet.safetensors", "lora": "lora.safetensors"}[method]
    assert sorted(files) == sorted(["curve.json", "generator.json", weights, GREEN, STRIPE])
    (green,) = load_file(files[GREEN]).items()
    assert green[0] == "<class-1>"
    # Adam's first steps move each value by the learning rate, of whatever size its gradient is
    tokenizer = CLIPTokenizer.from_pretrained(tiny_base / "tokenizer")
    first = known_embeddings(tiny_base)[tokenizer("leafy", add_special_tokens=False).input_ids[:COUNT]]
    moved = (green[1] - first).abs()
    assert moved.shape == (COUNT, 32)
    assert 0.005 < float(moved.mean()) <= 0.05
    if method == "lora":
        assert not any("text_encoder" in name for name in load_file(files[weights]))


def test_a_token_that_no_caption_has_learns_nothing_but_decay(train: Any, tiny_base: Path) -> None:
    """The caption names shapes alone, so that the tokens of the colour get no gradient."""
    files = train("out", caption="a {shape}")
    tokenizer = CLIPTokenizer.from_pretrained(tiny_base / "tokenizer")
    first = known_embeddings(tiny_base)[tokenizer("leafy", add_special_tokens=False).input_ids[:COUNT]]
    assert float((load_file(files[GREEN])["<class-1>"] - first).abs().max()) < 1e-3
    stripe = known_embeddings(tiny_base)[tokenizer("v stripe", add_special_tokens=False).input_ids[:COUNT]]
    assert float((load_file(files[STRIPE])["<class-3>"] - stripe).abs().mean()) > 5e-3


def test_an_interrupted_training_ends_with_the_same_embeddings(train: Any, tmp_path: Path) -> None:
    whole = train("whole", ema=0.5)
    checkpoints = KillAtFirst(tmp_path / "kept")
    with pytest.raises(Killed):
        train("killed", checkpoints, ema=0.5)
    resumed = train("resumed", checkpoints, ema=0.5)
    for name in (GREEN, STRIPE, "lora.safetensors"):
        one, other = load_file(whole[name]), load_file(resumed[name])
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_pipeline_of_diffusers_draws_the_same_images(train: Any, tiny_base: Path, tmp_path: Path) -> None:
    """The files have the standard forms of textual inversion and of LoRA."""
    files = train("out")
    generator = load(files, tmp_path)
    prompt = generator.prompt(GREEN_SQUARE)
    assert prompt == "a photo of <class-1> <class-1>_1 leafy square"
    (ours,) = generator.sample([SampleRequest(GREEN_SQUARE, 5)], 2.0, 3)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = generator._process.scheduler(3)
    for name in (GREEN, STRIPE):
        pipeline.load_textual_inversion(str(files[name]))
    pipeline.load_lora_weights(files["lora.safetensors"].parent, weight_name="lora.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a deprecation warning of numpy in the scheduler
        # the pipeline itself writes a token's further vectors after it
        (theirs,) = pipeline(
            "a photo of <class-1> leafy square", height=32, width=32, num_inference_steps=3, guidance_scale=2.0,
            generator=torch.Generator().manual_seed(5), output_type="np",
        ).images  # fmt: skip
    assert np.abs(ours.astype(np.float64) - 255 * theirs).max() <= 0.5 + 1e-3


def test_the_embeddings_decide_what_is_drawn(train: Any, tmp_path: Path) -> None:
    files = train("out")
    changed = tmp_path / "changed.safetensors"
    save_file({name: -tensor for name, tensor in load_file(files[GREEN]).items()}, changed)
    one, other = load(files, tmp_path), load({**files, GREEN: changed}, tmp_path)
    for labels, same in ((GREEN_SQUARE, False), (RED_SQUARE, True)):
        drawn = [each.sample([SampleRequest(labels, 3)], 2.0, 3) for each in (one, other)]
        assert np.array_equal(*drawn) == same


def test_a_file_that_does_not_fit_is_refused(train: Any, tmp_path: Path) -> None:
    files = train("out", steps=1)
    without = {name: path for name, path in files.items() if name != STRIPE}
    with pytest.raises(DataError, match=r"tokens-3\.safetensors: missing"):
        load(without, tmp_path)
    described = json.loads(files["generator.json"].read_text())
    described["class_tokens"]["count"] = 3
    (tmp_path / "more.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match=r"<class-1> should be \(3, 32\), got \(2, 32\)"):
        load({**files, "generator.json": tmp_path / "more.json"}, tmp_path)
    described["class_tokens"] = {"classes": ["colour/blue"]}
    (tmp_path / "other.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match="cannot be read"):
        load({**files, "generator.json": tmp_path / "other.json"}, tmp_path)


def test_what_cannot_have_tokens(train: Any) -> None:
    with pytest.raises(ConfigError, match="class_tokens: 2, but no training image has a rare class"):
        train("none", rare=np.array([], np.int64))
    base = {"generator": "stable-diffusion", "class_tokens": 1}
    for other in ({"text_encoder": True}, {"method": "lora", "per_class": True}):
        with pytest.raises(ValidationError, match="class_tokens"):
            StableDiffusionFinetune.model_validate({**base, **other})
    assert "class_tokens" not in StableDiffusionFinetune.model_validate({"generator": "stable-diffusion"}).model_dump()


def test_rows_of_an_encoder_that_belong_to_no_token_are_passed_over() -> None:
    """Some encoders have more rows than their tokenizer has tokens: the first own token has the number of the first such row."""
    known, own = torch.nn.Embedding(8, 3), torch.arange(6.0).view(2, 3)
    embedding = ExtendedEmbedding(known, 5, own)
    found = embedding(torch.tensor([[4, 5, 6]]))
    assert embedding.num_embeddings == 7
    assert torch.equal(found[0], torch.cat([known.weight[4:5], own]))


def test_images_without_a_rare_class_have_no_token() -> None:
    images = tiny_images()
    assert (images.labels[:, RARE] == 0).all(axis=1).any()  # what the tests above draw as a red square
