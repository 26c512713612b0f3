"""Makes the LoRA of a distillation to few steps, of random weights, for a tiny base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from shared.diffusion.text_to_image.families.family import Family

RANK, ALPHA = 4, 8


def few_step_lora(family: Family, folder: Path, kohya: bool = False) -> Path:
    """Writes a LoRA for the denoiser's attention as diffusers saves it, or with `kohya` as most repositories have it, and returns the file."""
    model, targets = family.load(family.denoiser), family.kind.lora
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        modules = targets if isinstance(targets, str) else list(targets)
        model.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, init_lora_weights=False, target_modules=modules))
    state = {name: value.contiguous() for name, value in get_peft_model_state_dict(model).items()}
    if kohya:
        path = folder / "kohya.safetensors"
        save_file(_kohya(state), path)
        return path
    part, pipeline = family.denoiser, _pipeline(family)
    metadata = {f"{part}_lora_adapter_metadata": model.peft_config["default"].to_dict()}
    pipeline.save_lora_weights(folder, **{f"{part}_lora_layers": state}, **metadata)
    return folder / "pytorch_lora_weights.safetensors"


def _pipeline(family: Family) -> Any:
    return family.pipeline


def _kohya(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = {}
    for name, value in state.items():
        layer, kind = name.rsplit(".lora_", 1)
        stem = f"lora_unet_{layer.replace('.', '_')}"
        found[f"{stem}.lora_{'down' if kind == 'A.weight' else 'up'}.weight"] = value
        found[f"{stem}.alpha"] = torch.tensor(float(ALPHA))
    return found
