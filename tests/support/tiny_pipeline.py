"""Makes a Stable Diffusion that is small enough for tests (70,000 random weights), in diffusers' layout, and images to train it on."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel

from shared.artifacts.checkpoints import NoCheckpoints
from shared.data.imageset import ImageSet
from shared.data.schema import LabelGroup, LabelSchema
from shared.diffusion.generator import BaseSource, Finetuning
from shared.stop import StopSignal

START, END = "<|startoftext|>", "<|endoftext|>"
SCHEMA = LabelSchema(
    groups=(
        LabelGroup(name="colour", classes=("red", "green")),
        LabelGroup(name="shape", classes=("square", "v_stripe")),
    )
)


def tiny_pipeline(folder: Path, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """Writes the parts into `folder`, without a safety checker, and returns it. Images of 32 pixels have latents of 16."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        UNet2DConditionModel(
            sample_size=16,
            layers_per_block=1,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=8,
            norm_num_groups=8,
        ).save_pretrained(folder / "unet")
        AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=8,
            latent_channels=4,
        ).save_pretrained(folder / "vae")
        vocabulary = write_tokenizer(folder / "tokenizer")
        CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary),
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                bos_token_id=vocabulary[START],
                eos_token_id=vocabulary[END],
            )
        ).save_pretrained(folder / "text_encoder")
    PNDMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        skip_prk_steps=True,
        steps_offset=1,
        prediction_type=prediction_type,
    ).save_pretrained(folder / "scheduler")
    classes = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
    }
    index = {"_class_name": "StableDiffusionPipeline", "requires_safety_checker": False, **classes}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def write_tokenizer(folder: Path) -> dict[str, int]:
    """Writes vocab.json and merges.txt, as Stable Diffusion's repositories have them: one token per byte, and no merges."""
    letters = sorted(ByteLevel.alphabet())
    names = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    vocabulary = {name: i for i, name in enumerate(names)}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "bos_token": START, "eos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": END, "unk_token": END}))
    return vocabulary


def tiny_images(count: int = 12, side: int = 32) -> ImageSet:
    """Returns noisy red and green images; every fourth is green, the rare colour."""
    random = np.random.default_rng(0)
    encoded, labels = [], np.zeros((count, 4), np.int8)
    for i in range(count):
        colour, shape = int(i % 4 == 3), i % 2
        labels[i, [colour, 2 + shape]] = 1
        pixels = random.integers(0, 60, (side, side, 3), np.uint8)
        pixels[..., colour] += 150
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return ImageSet(SCHEMA, encoded, [f"{i}.png" for i in range(count)], np.full(count, "train"), labels)


def tiny_finetuning(out: Path, source: BaseSource, device: torch.device, seed: int = 1) -> Finetuning:
    """Returns the inputs of a training that keeps no checkpoint and is not stopped."""
    return Finetuning(
        images=tiny_images(),
        rare=np.array([1]),
        seed=seed,
        device=device,
        out=out,
        checkpoints=NoCheckpoints(),
        stop=StopSignal(),
        base=source,
    )
