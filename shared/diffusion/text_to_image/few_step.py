"""Puts a distilled LoRA on a denoiser beside what a fine-tuning trained, so that few steps suffice."""

from __future__ import annotations

import inspect
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers.utils import convert_unet_state_dict_to_peft
from peft import get_peft_model_state_dict

from shared.diffusion.text_to_image.families.family import Family
from shared.errors import DataError
from shared.names import shown
from shared.weights.inputs import FewStepAdapter
from shared.weights.roles import ADAPTER

NAME = "few_step"
"""Names the LoRA among the adapters of a denoiser."""
FILE = "adapter.safetensors"


class FewStepLora:
    """Reads the LoRA, in any form that the family's pipeline of diffusers reads."""

    def __init__(self, adapter: FewStepAdapter, family: Family) -> None:
        """Raises DataError if the file does not fit the base, without loading the base's weights."""
        self._adapter, self._family = adapter, family
        self.add(family.load(family.denoiser, weights=False))

    def add(self, model: Any) -> None:
        """Adds it to a denoiser, which then computes with it and with the adapters that it has already."""
        own = [*getattr(model, "peft_config", {})]
        kind = self._family.pipeline
        required = [p.name for p in inspect.signature(kind).parameters.values() if p.default is p.empty]
        pipeline: Any = kind(**{**dict.fromkeys(required), self._family.denoiser: model})
        with tempfile.TemporaryDirectory(prefix="few-step-") as folder, warnings.catch_warnings():
            # adapters beside those of the fine-tuning are meant, which peft warns of
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute", UserWarning)
            # diffusers reads files of this ending alone
            (Path(folder) / FILE).symlink_to(self._adapter.path.resolve())
            source = {"weight_name": FILE, "use_safetensors": True, "local_files_only": True}
            try:
                read = pipeline.lora_state_dict(folder, **source)
                state = read[0] if isinstance(read, tuple) else read
                self._check(state)
                pipeline.load_lora_weights(folder, adapter_name=NAME, **source)
            except DataError:
                raise
            except Exception as error:  # diffusers raises all kinds for a file that does not fit
                raise self._refused((str(error).strip().splitlines() or [type(error).__name__])[0]) from error
        found = get_peft_model_state_dict(model, adapter_name=NAME)
        if strange := sorted(self._layers(state) ^ {*found}):
            raise self._refused(f"{shown(strange[0])} and {len(strange) - 1} more do not belong together")
        self.use(model, own)

    def use(self, model: Any, own: Sequence[str]) -> None:
        """Lets the denoiser compute with it and with those of its `own` adapters that are named."""
        model.enable_adapters()
        model.set_adapter([*own, NAME])

    def _check(self, state: dict[str, Any]) -> None:
        """Raises DataError for a LoRA that changes text encoders too, whose prompts would differ from those that ours was trained with."""
        if other := sorted(name for name in state if name.startswith("text_encoder")):
            raise self._refused(f"it changes a text encoder too, {shown(other[0])}")

    def _layers(self, state: dict[str, Any]) -> set[str]:
        """Returns the names of the tensors that diffusers read, as peft has them; it leaves those out that it does not know."""
        names = {name.removeprefix(f"{self._family.denoiser}."): value for name, value in state.items()}
        named = names if any("lora_A" in name for name in names) else convert_unet_state_dict_to_peft(names)
        return {name for name in named if not name.endswith(".alpha")}

    def _refused(self, why: str) -> DataError:
        name = self._family.kind.name
        return DataError(f"{ADAPTER} {self._adapter.name}: does not fit the base ({why}); name a LoRA for {name}")
