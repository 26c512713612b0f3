"""Lists the files of a Stable Diffusion in diffusers' layout that are read, by part. It imports no diffusers, so that control can use it."""

from __future__ import annotations

from collections.abc import Sequence

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
"""Maps the parts with weights to the file that holds them."""
FILES = {
    "unet": ("config.json",),
    "vae": ("config.json",),
    "text_encoder": ("config.json",),
    "tokenizer": ("tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "tokenizer.json"),
    "scheduler": ("scheduler_config.json",),
}
"""Lists the other files that are read of each part; of a tokenizer, those that exist."""
LAYOUT = "a Stable Diffusion 1.x or 2.x in diffusers' layout"
"""Describes a model with these parts, for messages."""


def base_files(weights: Sequence[str] = tuple(WEIGHTS)) -> list[str]:
    """Returns the paths, inside the base, of all files that may be read; `weights` names the parts whose weights are among them."""
    small = [f"{part}/{name}" for part, names in FILES.items() for name in names]
    return small + [f"{part}/{WEIGHTS[part]}" for part in weights]
