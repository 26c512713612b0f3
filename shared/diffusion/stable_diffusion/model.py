"""Chooses which parts of the base model are trained, fully or by LoRA, and reads and writes the trained weights.

`unet.safetensors` and `text_encoder.safetensors` are state dicts in the form of the base's own files; `lora.safetensors` is what
diffusers' `load_lora_weights` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.training_utils import cast_training_params
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from torch import nn
from transformers import CLIPTextModel

from shared.config.generation import StableDiffusionFinetune
from shared.diffusion.stable_diffusion.base import Parts
from shared.errors import DataError
from shared.tensors import check_shapes, read_tensors, save_tensors

UNET_TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]
TEXT_TARGETS = ["k_proj", "q_proj", "v_proj", "out_proj"]


class Denoiser(nn.Module):
    """Joins the UNet, and the text encoder if it is trained too, into one module, so that their gradients are averaged together."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel | None) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Returns the prediction `[n, 4, h, w]` for noisy latents of that shape and text: embeddings `[n, t, d]` or token numbers `[n, t]`."""
        if self.text_encoder is not None:
            text = self.text_encoder(text).last_hidden_state
        predicted: torch.Tensor = self.unet(noisy, timesteps, text).sample
        return predicted

    def trained(self) -> dict[str, nn.Parameter]:
        """Returns the parameters that are trained, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


def make_trainable(parts: Parts, config: StableDiffusionFinetune, seed: int, frozen: torch.dtype) -> Denoiser:
    """Returns the UNet (and the text encoder) ready for training. With LoRA, frozen weights get the type `frozen`, trained ones float32."""
    models: list[Any] = [parts.unet, *([parts.text_encoder] if config.text_encoder else [])]
    if config.method == "lora":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # peft draws the LoRA matrices from the global generator
            for model, targets in zip(models, (UNET_TARGETS, TEXT_TARGETS), strict=False):
                model.requires_grad_(False).to(frozen)
                model.add_adapter(
                    LoraConfig(
                        r=config.rank, lora_alpha=config.rank, init_lora_weights="gaussian", target_modules=targets
                    )
                )
                cast_training_params(model, torch.float32)
    else:
        for model in models:
            model.requires_grad_(True)
    denoiser = Denoiser(parts.unet, parts.text_encoder if config.text_encoder else None)
    if config.gradient_checkpointing:
        parts.unet.enable_gradient_checkpointing()
        if config.text_encoder:
            parts.text_encoder.activation_checkpointing_enable()
    return denoiser.train()


def save_trained(denoiser: Denoiser, method: str, out: Path) -> None:
    """Writes the trained weights into `out`, under the names that this module's docstring gives."""
    text = denoiser.text_encoder
    if method == "lora":
        StableDiffusionLoraLoaderMixin.save_lora_weights(
            out,
            unet_lora_layers=_lora_state(denoiser.unet),
            text_encoder_lora_layers=_lora_state(text) if text is not None else None,
            weight_name="lora.safetensors",
        )
        return
    save_tensors(denoiser.unet.state_dict(), out / "unet.safetensors")
    if text is not None:
        save_tensors(text.state_dict(), out / "text_encoder.safetensors")


def weights_from_base(method: str, text_encoder: bool) -> list[str]:
    """Returns the parts whose weights the fine-tuning did not change, so that they are read from the base."""
    return [
        "vae",
        *(["unet"] if method == "lora" else []),
        *([] if method == "full" and text_encoder else ["text_encoder"]),
    ]


def load_trained(parts: Parts, method: str, text_encoder: bool, files: Mapping[str, Path]) -> None:
    """Loads the trained weights into the base's parts; raises DataError if a file is missing or does not fit."""
    if method == "lora":
        state = read_tensors(files, "lora.safetensors", "finetune")
        _load_lora(parts.unet, {n: t for n, t in state.items() if n.startswith("unet.")})
        if text_encoder:
            _load_lora(parts.text_encoder, {n: t for n, t in state.items() if n.startswith("text_encoder.")})
        return
    _load_state(parts.unet, "unet.safetensors", files)
    if text_encoder:
        _load_state(parts.text_encoder, "text_encoder.safetensors", files)


def _load_state(model: nn.Module, name: str, files: Mapping[str, Path]) -> None:
    state = read_tensors(files, name, "finetune")
    check_shapes(name, state, model.state_dict(), "finetune")
    model.load_state_dict(state, assign=True)


def _load_lora(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    prefix = "unet" if isinstance(model, UNet2DConditionModel) else "text_encoder"
    try:
        if prefix == "unet":
            StableDiffusionLoraLoaderMixin.load_lora_into_unet(state, None, model)
        else:
            StableDiffusionLoraLoaderMixin.load_lora_into_text_encoder(state, None, model, prefix=prefix)
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        first = str(error).strip().splitlines()[0]
        raise DataError(f"lora.safetensors: does not fit the base's {prefix} ({first}); run finetune again") from error
    loaded = {f"{prefix}.{key}": tensor for key, tensor in _lora_state(model).items()} if state else {}
    check_shapes("lora.safetensors", state, loaded, "finetune")
    if not state:
        raise DataError(f"lora.safetensors: holds nothing for the {prefix}; run finetune again")


def _lora_state(model: Any) -> dict[str, torch.Tensor]:
    adapters = list(model.peft_config)
    state: dict[str, torch.Tensor] = convert_state_dict_to_diffusers(
        get_peft_model_state_dict(model, adapter_name=adapters[0])
    )
    return state
