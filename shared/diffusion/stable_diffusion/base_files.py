"""Which files of a Stable Diffusion in diffusers' layout are read, by its part; no diffusers here, so that control may ask too."""

from __future__ import annotations

from collections.abc import Sequence

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
"""The parts with weights, and the file that holds them."""
FILES = {
    "unet": ("config.json",),
    "vae": ("config.json",),
    "text_encoder": ("config.json",),
    "tokenizer": ("tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "tokenizer.json"),
    "scheduler": ("scheduler_config.json",),
}
"""What else is read of each part; of a tokenizer those that are there."""
LAYOUT = "a Stable Diffusion 1.x or 2.x in diffusers' layout"
"""What has these parts, in words."""


def base_files(weights: Sequence[str] = tuple(WEIGHTS)) -> list[str]:
    """Paths inside the base of all that may be read; `weights` are the parts whose weights are."""
    small = [f"{part}/{name}" for part, names in FILES.items() for name in names]
    return small + [f"{part}/{WEIGHTS[part]}" for part in weights]
