"""Makes bases of Stable Diffusion 1.x with random weights, in diffusers' layout, without any file from elsewhere: their shapes decide what they cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel

START, END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class Shapes:
    """Gives the sizes of the parts of a base."""

    unet: tuple[int, ...]
    """Gives the channels of the levels of the UNet, of which each but one reads the text."""
    text_at: tuple[bool, ...]
    """Says of each level whether it reads the text."""
    layers: int
    """Counts the residual blocks per level, of the UNet and of the VAE."""
    heads: int
    """Gives `attention_head_dim` of the UNet, which counts the heads of attention."""
    vae: tuple[int, ...]
    groups: int
    """Counts the groups of the normalisations of UNet and VAE."""
    latents: int
    """Gives the side of the latents of the images that the base is for."""
    text: int
    """Gives the width of the text encoder."""
    text_hidden: int
    text_layers: int
    text_heads: int
    vocabulary: int | None
    """Counts the tokens that the text encoder has embeddings for; None has one for each of the tokenizer."""

    @property
    def side(self) -> int:
        """Returns the side in pixels of the images that the base is for."""
        return int(self.latents * 2 ** (len(self.vae) - 1))


TINY = Shapes(
    unet=(16, 32), text_at=(False, True), layers=1, heads=8, vae=(8, 16), groups=8, latents=16,
    text=32, text_hidden=64, text_layers=2, text_heads=4, vocabulary=None,
)  # fmt: skip
"""Gives sizes for tests: 70,000 weights. Images of 32 pixels have latents of 16."""
SD15 = Shapes(
    unet=(320, 640, 1280, 1280), text_at=(True, True, True, False), layers=2, heads=8, vae=(128, 256, 512, 512), groups=32, latents=64,
    text=768, text_hidden=3072, text_layers=12, text_heads=12, vocabulary=49408,
)  # fmt: skip
"""Gives the sizes of Stable Diffusion 1.5: 860 million weights in the UNet, 123 in the text encoder (CLIP-L), and 84 in the VAE."""
SHAPES = {"tiny": TINY, "sd15": SD15}


def write_base(shapes: Shapes, folder: Path, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """Writes the parts into `folder`, without a safety checker, and returns it."""
    reads_text = shapes.text_at
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        UNet2DConditionModel(
            sample_size=shapes.latents,
            layers_per_block=shapes.layers,
            block_out_channels=shapes.unet,
            down_block_types=tuple("CrossAttnDownBlock2D" if text else "DownBlock2D" for text in reads_text),
            up_block_types=tuple("CrossAttnUpBlock2D" if text else "UpBlock2D" for text in reversed(reads_text)),
            cross_attention_dim=shapes.text,
            attention_head_dim=shapes.heads,
            norm_num_groups=shapes.groups,
        ).save_pretrained(folder / "unet")
        AutoencoderKL(
            block_out_channels=shapes.vae,
            down_block_types=("DownEncoderBlock2D",) * len(shapes.vae),
            up_block_types=("UpDecoderBlock2D",) * len(shapes.vae),
            layers_per_block=shapes.layers,
            norm_num_groups=shapes.groups,
            latent_channels=4,
        ).save_pretrained(folder / "vae")
        vocabulary = write_tokenizer(folder / "tokenizer")
        CLIPTextModel(
            CLIPTextConfig(
                vocab_size=shapes.vocabulary or len(vocabulary),
                hidden_size=shapes.text,
                intermediate_size=shapes.text_hidden,
                num_hidden_layers=shapes.text_layers,
                num_attention_heads=shapes.text_heads,
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
