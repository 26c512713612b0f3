"""Defines the table of families of text-to-image models, which all code reads that must know all of them. It imports no torch."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from shared.errors import ConfigError, DataError

ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")
"""Lists the layers of a UNet's or a plain transformer's attention to which LoRA is added."""


@dataclass(frozen=True)
class FamilyKind:
    """Declares one family, and the settings that a study has if it names only its base."""

    name: str
    """Names it in messages."""
    family: str
    """Names the class that computes, a `shared.diffusion.text_to_image.families.family.Family`, as `module:name`."""
    resolution: int
    """Gives the side in pixels of the images that it was trained on, which training and generated images have."""
    multiple: int
    """Says of how many pixels the sides of images are multiples with the published bases; another base may need another number."""
    guidance: float
    """Gives the scale of classifier-free guidance, by the published examples."""
    steps: int
    """Gives the number of evaluations of the network per image, by the published examples."""
    lora: tuple[str, ...] | str
    """Names the layers to which LoRA is added: the ends of their names, or a regular expression of the whole name."""
    precisions: tuple[str, ...] = ("bf16", "fp32")
    """Lists the precisions of training and sampling on a GPU, the default first; float16 overflows in most families."""
    class_tokens: bool = False
    """Says whether classes may have tokens of their own, which needs a single text encoder that is trained with the denoiser."""


FAMILIES: Mapping[str, FamilyKind] = MappingProxyType(
    {
        "StableDiffusionPipeline": FamilyKind(
            "Stable Diffusion 1.x or 2.x",
            "shared.diffusion.text_to_image.families.stable_diffusion:StableDiffusion",
            resolution=512,
            multiple=64,
            guidance=2.0,  # with which images are varied enough to train on; examples for pictures to look at have 7.5 and 50 steps
            steps=25,
            lora=ATTENTION,
            precisions=("bf16", "fp16", "fp32"),
            class_tokens=True,
        ),
        "StableDiffusionXLPipeline": FamilyKind(
            "Stable Diffusion XL",
            "shared.diffusion.text_to_image.families.stable_diffusion_xl:StableDiffusionXL",
            resolution=1024,
            multiple=32,
            guidance=5.0,
            steps=50,
            lora=ATTENTION,
            precisions=("bf16", "fp16", "fp32"),
        ),
        "StableDiffusion3Pipeline": FamilyKind(
            "Stable Diffusion 3.5",
            "shared.diffusion.text_to_image.families.stable_diffusion_3:StableDiffusion3",
            resolution=1024,
            multiple=16,
            guidance=4.5,
            steps=28,
            lora=(
                *(f"attn.{name}" for name in ATTENTION),
                *(f"attn.{name}" for name in ("add_k_proj", "add_q_proj", "add_v_proj", "to_add_out")),
            ),
        ),
        "Flux2KleinPipeline": FamilyKind(
            "FLUX.2-klein-base",
            "shared.diffusion.text_to_image.families.flux2_klein:Flux2Klein",
            resolution=1024,
            multiple=16,
            guidance=4.0,
            steps=50,
            lora=(
                r".*\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out|to_qkv_mlp_proj)"
                r"|single_transformer_blocks\.\d+\.attn\.to_out"
            ),
        ),
        "ZImagePipeline": FamilyKind(
            "Z-Image",
            "shared.diffusion.text_to_image.families.z_image:ZImage",
            resolution=1024,
            multiple=16,
            guidance=5.0,  # Z-Image counts it from 0, so that its examples write 4
            steps=50,
            lora=ATTENTION,
        ),
    }
)
"""Maps the pipeline that a base's model_index.json names to its family."""


@dataclass(frozen=True)
class Terms:
    """Says under which terms a published base may be had."""

    pipeline: str
    """Gives the pipeline that its model_index.json names."""
    licence: str
    gated: bool
    """Says whether its owner must grant access, so that HF_TOKEN is needed."""


KNOWN: Mapping[str, Terms] = MappingProxyType(
    {
        "CompVis/stable-diffusion-v1-1": Terms("StableDiffusionPipeline", "CreativeML Open RAIL-M", False),
        "CompVis/stable-diffusion-v1-4": Terms("StableDiffusionPipeline", "CreativeML Open RAIL-M", False),
        "stable-diffusion-v1-5/stable-diffusion-v1-5": Terms(
            "StableDiffusionPipeline", "CreativeML Open RAIL-M", False
        ),
        "stabilityai/stable-diffusion-xl-base-1.0": Terms(
            "StableDiffusionXLPipeline", "CreativeML Open RAIL++-M", False
        ),
        "stabilityai/stable-diffusion-3.5-medium": Terms(
            "StableDiffusion3Pipeline", "Stability AI Community (free below a revenue of USD 1 million a year)", True
        ),
        "stabilityai/stable-diffusion-3.5-large": Terms(
            "StableDiffusion3Pipeline", "Stability AI Community (free below a revenue of USD 1 million a year)", True
        ),
        "black-forest-labs/FLUX.2-klein-base-4B": Terms("Flux2KleinPipeline", "Apache-2.0", False),
        "black-forest-labs/FLUX.2-klein-base-9B": Terms("Flux2KleinPipeline", "FLUX non-commercial", True),
        "Tongyi-MAI/Z-Image": Terms("ZImagePipeline", "Apache-2.0", False),
    }
)
"""Maps published bases to their terms as they were when this list was written; a base's page on the hub is what counts."""


def check_class_tokens(kind: FamilyKind, base: str) -> None:
    """Raises ConfigError if classes cannot have tokens of their own with a base of this family."""
    if not kind.class_tokens:
        having = " and ".join(other.name for other in FAMILIES.values() if other.class_tokens)
        raise ConfigError(
            f"finetune.class_tokens: {base} is a {kind.name}, and only {having} has tokens of classes; set it to 0, or name another base"
        )


def side_multiple(vae_levels: int, unet_levels: int | None = None) -> int:
    """Returns the number of pixels of which the sides of images must be multiples, for a VAE and a UNet of so many levels.

    Each halves its input at each level but the last; a transformer, which a base without UNet has, reads patches of two latents.
    """
    return int(2 ** (vae_levels - 1) * (2 if unet_levels is None else 2 ** (unet_levels - 1)))


def family_kind(pipeline: object, base: str) -> FamilyKind:
    """Returns the family of a base by the `_class_name` of its model_index.json; raises DataError, which lists those there are, if none has it."""
    if isinstance(pipeline, str) and pipeline in FAMILIES:
        return FAMILIES[pipeline]
    close = difflib.get_close_matches(str(pipeline), FAMILIES, n=1)
    near = f" (did you mean {close[0]}?)" if close else ""
    known = ", ".join(f"{name} ({kind.name})" for name, kind in FAMILIES.items())
    raise DataError(
        f"finetune.base {base}: model_index.json names the pipeline {str(pipeline)[:80]!r}{near}, of no family that can be fine-tuned; "
        f"name a base of {known}"
    )


def family_of_index(content: bytes, base: str) -> FamilyKind:
    """Returns the family that the content of a model_index.json names; raises DataError if it is no JSON object, or of no family."""
    try:
        index = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"finetune.base {base}: model_index.json is no JSON ({error})") from error
    return family_kind(index.get("_class_name") if isinstance(index, dict) else None, base)
