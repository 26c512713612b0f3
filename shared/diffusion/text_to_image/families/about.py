"""Describes a study's base model before anything of it is fetched, as far as it is known. It imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.config.generation import (
    FEW_STEP_GUIDANCE,
    FEW_STEP_STEPS,
    AnyPretrained,
    Generate,
    StableDiffusionFinetune,
)
from shared.diffusion.text_to_image.base_files import INDEX
from shared.diffusion.text_to_image.families.table import FAMILIES, KNOWN, FamilyKind, family_of_index


def about_base(finetune: AnyPretrained, generate: Generate) -> str:
    """Returns a line with the base's family, licence and gate, the settings that a study has with it, and a LoRA for few steps.

    Raises DataError if the base is a local folder of no family.
    """
    location = finetune.base_location
    terms = KNOWN.get(location)
    kind = kind_of_base(finetune)
    if terms is None:
        licence = "its licence is not listed here, so read it where the base is from"
    else:
        licence = f"licence {terms.licence}, {'gated: HF_TOKEN is needed' if terms.gated else 'open'}"
    few = _few_step(generate)
    if kind is None:
        return f"base {location}: {licence}; its family, and what follows from it, is found when it is read{few}"
    return f"base {location}: {kind.name}; {licence}; {_settings(kind, finetune, generate)}{few}"


def _few_step(generate: Generate) -> str:
    """Returns which LoRA the images are drawn in few steps by, as the end of a line."""
    few = generate.few_step
    if few is None:
        return ""
    at = f"@{few.revision[:8]}" if few.revision else ""
    file = f" ({few.hub_file})" if few.on_hub else ""
    return f"; drawn in few steps by the LoRA {few.adapter}{at}{file} and the scheduler {few.scheduler}; read its licence too"


def kind_of_base(finetune: AnyPretrained) -> FamilyKind | None:
    """Returns the family of the base, or None if only the base itself says it; raises DataError if it is a local folder of no family."""
    location = finetune.base_location
    if isinstance(finetune, StableDiffusionFinetune):
        return FAMILIES["StableDiffusionPipeline"]
    index = Path(location) / INDEX
    if index.is_file():
        return family_of_index(index.read_bytes(), location)
    return FAMILIES[KNOWN[location].pipeline] if location in KNOWN else None


def _settings(kind: FamilyKind, finetune: AnyPretrained, generate: Generate) -> str:
    def chosen(value: Any, default: Any) -> Any:
        return default if value is None else value

    lora = kind.lora if isinstance(kind.lora, str) else ", ".join(kind.lora)
    trained = f"LoRA on {lora}" if finetune.method == "lora" else "all weights are trained"
    own = (kind.guidance, kind.steps) if generate.few_step is None else (FEW_STEP_GUIDANCE, FEW_STEP_STEPS)
    return (
        f"images of {chosen(finetune.resolution, kind.resolution)} pixels (of multiples of {kind.multiple}), "
        f"guidance {chosen(generate.guidance, own[0]):g}, {chosen(generate.steps, own[1])} steps, "
        f"{chosen(finetune.precision, kind.precisions[0])}, {trained}"
    )
