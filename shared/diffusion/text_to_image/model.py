"""Chooses which parts of the base model are trained, fully or by LoRA, and reads and writes the trained weights.

`unet.safetensors` or `transformer.safetensors`, and `text_encoder.safetensors`, are state dicts in the form of the base's own files;
`lora.safetensors` is what diffusers' `load_lora_weights` reads, and so is `lora-<column>.safetensors` of a class.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.training_utils import cast_training_params
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from shared.diffusion.text_to_image.families.family import Condition, Family
from shared.diffusion.text_to_image.families.stable_diffusion import StableDiffusion
from shared.diffusion.text_to_image.few_step import FewStepLora
from shared.errors import DataError
from shared.tensors import check_shapes, read_tensors, save_tensors

TEXT_TARGETS = ["k_proj", "q_proj", "v_proj", "out_proj"]
LORA = "lora.safetensors"


class Denoiser(nn.Module):
    """Joins the denoiser, and the text encoder if it or tokens of it are trained too, into one module, so that their gradients are averaged together."""

    def __init__(
        self, family: Family, model: nn.Module, text_encoder: nn.Module | None = None, tokens_only: bool = False
    ) -> None:
        """Takes a text encoder of which all is trained, or with `tokens_only` the embeddings of the tokens of classes alone."""
        super().__init__()
        self.tokens_only = tokens_only
        self.family = family
        self.add_module(family.denoiser, model)
        self.text_encoder = text_encoder

    @property
    def model(self) -> Any:
        """Returns the denoiser alone."""
        return getattr(self, self.family.denoiser)

    def forward(self, noisy: torch.Tensor, level: torch.Tensor, conditions: Sequence[Condition]) -> torch.Tensor:
        """Returns the prediction `[n, c, h, w]` for noisy latents of that shape; with a text encoder, conditions hold token numbers."""
        if self.text_encoder is not None and isinstance(self.family, StableDiffusion):
            conditions = self.family.embed(self.text_encoder, conditions)
        return self.family.predict(self.model, noisy, level, conditions)

    def trained(self) -> dict[str, nn.Parameter]:
        """Returns the parameters that are trained, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


def make_trainable(denoiser: Denoiser, rank: int | None, seed: int, checkpointing: bool) -> Denoiser:
    """Returns it ready for training: in full, or with `rank` by LoRA, whose weights are float32. `checkpointing` recomputes activations."""
    text: Any = denoiser.text_encoder
    whole_text = text if not denoiser.tokens_only else None
    if rank is None:
        denoiser.requires_grad_(True)
    else:
        targets = denoiser.family.kind.lora
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # peft draws the LoRA matrices from the global generator
            _add_lora(denoiser.model, rank, targets if isinstance(targets, str) else list(targets))
            if whole_text is not None:
                _add_lora(whole_text, rank, TEXT_TARGETS)
    if denoiser.tokens_only:
        text.requires_grad_(False)
        text.get_input_embeddings().own.requires_grad_(True)
    if checkpointing:
        denoiser.model.enable_gradient_checkpointing()
        if text is not None:
            text.activation_checkpointing_enable()
    return denoiser.train()


def _add_lora(model: Any, rank: int, targets: str | list[str]) -> None:
    model.requires_grad_(False)
    model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets))
    cast_training_params(model, torch.float32)


def save_trained(denoiser: Denoiser, method: str, out: Path) -> None:
    """Writes the trained weights into `out`, under the names that this module's docstring gives."""
    family, text = denoiser.family, denoiser.text_encoder if not denoiser.tokens_only else None
    if method == "lora":
        state = _lora_state(denoiser.model, family.denoiser, family)
        if text is not None:
            state |= _lora_state(text, "text_encoder", family)
        save_tensors(state, out / LORA, {"format": "pt"})
        return
    save_tensors(denoiser.model.state_dict(), out / f"{family.denoiser}.safetensors")
    if text is not None:
        save_tensors(text.state_dict(), out / "text_encoder.safetensors")


def weights_from_base(family: Family, method: str, text_encoder: bool) -> list[str]:
    """Returns the parts whose weights the fine-tuning did not change, so that they are read from the base."""
    changed = [] if method == "lora" else [family.denoiser, *(["text_encoder"] if text_encoder else [])]
    return [part for part in family.parts if part not in changed]


def class_lora(column: int) -> str:
    """Returns the name of the file with the adapters of the class in a column of the labels."""
    return f"lora-{column}.safetensors"


class ClassAdapters:
    """Reads the LoRA of each rare class, which a fine-tuning with `per_class` wrote."""

    def __init__(
        self, files: Mapping[str, Path], family: Family, columns: Sequence[int], few_step: FewStepLora | None = None
    ) -> None:
        """Raises DataError if a file is missing or does not fit the base, without loading the base's weights."""
        self._files, self._family, self.columns, self._few_step = files, family, columns, few_step
        for column in columns:
            model = family.load(
                family.denoiser, weights=False
            )  # peft gives a second adapter values, which have no place in it
            state = {name: tensor.to("meta") for name, tensor in self._state(column).items()}
            _load_lora(model, family.denoiser, state, family, class_lora(column))

    def load(self, part: str, dtype: torch.dtype, merge: bool = False) -> Any:
        """Returns a part on the CPU; the denoiser has all adapters, of which `use` chooses. They are never merged."""
        model = self._family.load(part, dtype)
        if part != self._family.denoiser:
            return model
        for column in self.columns:
            _load_lora(model, part, self._state(column), self._family, class_lora(column))
        if self._few_step is not None:
            self._few_step.add(model)
        return model.to(dtype)

    def use(self, model: Any, column: int | None) -> None:
        """Lets the denoiser compute with the adapters of a class, or without those of any."""
        own = [] if column is None else [_adapter(class_lora(column))]
        if self._few_step is not None:
            self._few_step.use(model, own)
        elif own:
            model.enable_adapters()
            model.set_adapter(own)
        else:
            model.disable_adapters()

    def _state(self, column: int) -> dict[str, torch.Tensor]:
        return read_tensors(self._files, class_lora(column), "finetune")


class Trained:
    """Reads what a fine-tuning wrote."""

    def __init__(
        self,
        files: Mapping[str, Path],
        family: Family,
        method: str,
        text_encoder: bool,
        few_step: FewStepLora | None = None,
    ) -> None:
        """Raises DataError if a file is missing or does not fit the base, without loading the base's weights."""
        self._files, self._family = files, family
        self._lora, self._text, self._few_step = method == "lora", text_encoder, few_step
        for part in (family.denoiser, *(["text_encoder"] if text_encoder else [])):
            model = family.load(part, weights=False)
            state = {name: tensor.to("meta") for name, tensor in self._state(part).items()}
            self._fill(model, part, state)

    def load(self, part: str, dtype: torch.dtype, merge: bool = False) -> Any:
        """Returns a part with the trained weights, on the CPU; one that was not trained as the base has it.

        `merge` adds the adapters of LoRA to the weights, in float32, so that they cost no time; results then differ by rounding.
        """
        family = self._family
        if part != family.denoiser and not (self._text and part == "text_encoder"):
            return family.load(part, dtype)
        few_step = self._few_step if part == family.denoiser else None
        merge = merge and (self._lora or few_step is not None)
        model = family.load(part, torch.float32 if merge else dtype, weights=self._lora)
        self._fill(model, part, self._state(part))
        if few_step is not None:
            few_step.add(model)
        if merge:
            for module in model.modules():
                if isinstance(module, BaseTunerLayer):
                    module.merge()
        return model.to(dtype)

    def _state(self, part: str) -> dict[str, torch.Tensor]:
        if not self._lora:
            return read_tensors(self._files, f"{part}.safetensors", "finetune")
        state = read_tensors(self._files, LORA, "finetune")
        return {name: tensor for name, tensor in state.items() if name.startswith(f"{part}.")}

    def _fill(self, model: Any, part: str, state: dict[str, torch.Tensor]) -> None:
        if self._lora:
            _load_lora(model, part, state, self._family)
        else:
            check_shapes(f"{part}.safetensors", state, model.state_dict(), "finetune")
            model.load_state_dict(state, assign=True)


def _adapter(file: str) -> str:
    """Returns the name under which a model keeps the adapters of a class, without a dot and without "lora", which are parts of peft's own keys."""
    return file.partition(".")[0].replace("lora-", "class")


def _load_lora(model: Any, part: str, state: dict[str, torch.Tensor], family: Family, file: str = LORA) -> None:
    try:
        if part == "text_encoder":
            StableDiffusionLoraLoaderMixin.load_lora_into_text_encoder(state, None, model, prefix=part)
        else:
            with warnings.catch_warnings():
                # a second class's adapters beside the first's are meant, which peft warns of
                warnings.filterwarnings("ignore", "Already found a `peft_config` attribute", UserWarning)
                model.load_lora_adapter(dict(state), prefix=part, adapter_name=None if file == LORA else _adapter(file))
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        first = str(error).strip().splitlines()[0]
        raise DataError(f"{file}: does not fit the base's {part} ({first}); run finetune again") from error
    check_shapes(file, state, _lora_state(model, part, family) if state else {}, "finetune")
    if not state:
        raise DataError(f"{file}: holds nothing for the {part}; run finetune again")


def _lora_state(model: Any, part: str, family: Family) -> dict[str, torch.Tensor]:
    """Returns the tensors of the adapters that were added last, under the names that are stored."""
    state: dict[str, torch.Tensor] = get_peft_model_state_dict(model, adapter_name=[*model.peft_config][-1])
    named = convert_state_dict_to_diffusers(state) if part == "text_encoder" else family.lora_names(state)
    return {f"{part}.{name}": tensor for name, tensor in named.items()}
