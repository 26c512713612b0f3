"""Describes a study's base model before anything of it is fetched, as far as it is known. It imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared.config.generation import AnyPretrained, Generate, StableDiffusionFinetune
from shared.diffusion.text_to_image.base_files import INDEX
from shared.diffusion.text_to_image.families.table import FAMILIES, KNOWN, FamilyKind, family_of_index


def about_base(finetune: AnyPretrained, generate: Generate) -> str:
    """Returns a line with the base's family, licence and gate, and the settings that a study has with it.

    Raises DataError if the base is a local folder of no family.
    """
    location = finetune.base_location
    terms = KNOWN.get(location)
    kind = _kind(finetune, location)
    if terms is None:
        licence = "its licence is not listed here, so read it where the base is from"
    else:
        licence = f"licence {terms.licence}, {'gated: HF_TOKEN is needed' if terms.gated else 'open'}"
    if kind is None:
        return f"base {location}: {licence}; its family, and what follows from it, is found when it is read"
    return f"base {location}: {kind.name}; {licence}; {_settings(kind, finetune, generate)}"


def _kind(finetune: AnyPretrained, location: str) -> FamilyKind | None:
    """Returns the family of the base, or None if only the base itself says it."""
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
    return (
        f"images of {chosen(finetune.resolution, kind.resolution)} pixels (of multiples of {kind.multiple}), "
        f"guidance {chosen(generate.guidance, kind.guidance):g}, {chosen(generate.steps, kind.steps)} steps, "
        f"{chosen(finetune.precision, kind.precisions[0])}, {trained}"
    )
