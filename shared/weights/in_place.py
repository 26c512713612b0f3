"""Says what a folder or a repository has in place of a file of weights that it lacks. It opens no file."""

from __future__ import annotations

import re
from collections.abc import Collection

from shared.names import shown

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
WEIGHTS = (*PICKLES, ".safetensors")
PART = re.compile(r"-[0-9]+-of-[0-9]+\.")
HALF = re.compile(r"\.(fp16|bf16)\.")


def in_place(missing: str, available: Collection[str]) -> str:
    """Returns what there is in place of a missing file of weights, as the end of a sentence; an empty text if there is nothing."""
    found = _found(missing, available)
    return f"; {found[0]}" if found else ""


def remedy_in_folder(missing: str, available: Collection[str]) -> str:
    """Returns what helps if weights are missing in a folder of one's own, as a sentence."""
    found = _found(missing, available)
    return found[1] if found else "name a folder that has it"


def _found(missing: str, available: Collection[str]) -> tuple[str, str] | None:
    """Returns what was found and what helps."""
    if not missing.endswith(WEIGHTS):
        return None
    folder, _, name = missing.rpartition("/")
    found = [other for other in sorted(available) if other.endswith(WEIGHTS)]
    beside = [other for other in found if other.rpartition("/")[0] == folder]
    whole = [other for other in found if "/" not in other]
    if parts := [other for other in beside if PART.search(other)]:
        joined = "which are not joined" if parts[0].endswith(PICKLES) else "of which one or the index is missing"
        return (
            f"its weights are in parts ({shown(parts[0])}), {joined}",
            'copy the folder again, or save the model whole, by save_pretrained(folder, max_shard_size="100GB")',
        )
    if half := [other for other in beside if HALF.search(other) and not other.endswith(PICKLES)]:
        return (
            f"it has {shown(half[0])}, which is not read, a copy in half precision",
            f"rename that to {name}, which is read in any precision",
        )
    if beside:
        if beside[0].endswith(PICKLES):
            return (
                f"it has {shown(beside[0])}, which is not read, only the pickle, which could run code when read",
                "convert it with safetensors, or name a finetune.revision that has it (on the hub, often refs/pr/<n>)",
            )
        return f"it has {shown(beside[0])}, which is not read", f"rename that to {name}"
    if whole:
        return (
            f"it has {shown(whole[0])}, a checkpoint in another layout, which is not converted",
            "convert it by the script of diffusers, convert_original_stable_diffusion_to_diffusers.py",
        )
    return None
