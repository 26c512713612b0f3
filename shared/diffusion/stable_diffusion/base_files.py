"""Lists the files of a Stable Diffusion in diffusers' layout that are read, by part. It imports no diffusers, so that control can use it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
"""Maps the parts with weights to the file that holds them."""
PICKLES = {
    "unet": "diffusion_pytorch_model.bin",
    "vae": "diffusion_pytorch_model.bin",
    "text_encoder": "pytorch_model.bin",
}
"""Maps the parts with weights to the pickle that old repositories of the hub have in place of that file."""
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


def missing_names(part: str, there: Collection[str]) -> list[str]:
    """Returns the names of the files, beside its weights, without which a part cannot be loaded and which are not `there`."""
    if part == "tokenizer":
        return [] if "tokenizer.json" in there else [name for name in ("vocab.json", "merges.txt") if name not in there]
    return [name for name in FILES[part] if name not in there]


def missing_files(there: Collection[str]) -> list[str]:
    """Returns the paths, inside the base, of the files without which it cannot be loaded and which are not `there`; weights come first."""
    weights = [f"{part}/{name}" for part, name in WEIGHTS.items()]
    small = [
        f"{part}/{name}"
        for part, names in FILES.items()
        for name in missing_names(part, [name for name in names if f"{part}/{name}" in there])
    ]
    return [path for path in weights if path not in there] + small


def base_files(weights: Sequence[str] = tuple(WEIGHTS)) -> list[str]:
    """Returns the paths, inside the base, of all files that may be read; `weights` names the parts whose weights are among them."""
    small = [f"{part}/{name}" for part, names in FILES.items() for name in names]
    return small + [f"{part}/{WEIGHTS[part]}" for part in weights]
