"""Chooses the files of a base model in diffusers' layout that are read, by their names. It imports no diffusers, so that control can use it."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

INDEX = "model_index.json"
"""Names the file that says which pipeline, and so which family, a base belongs to."""
VARIANTS = ("bf16", "fp16")
"""Lists the kinds of weights that a part is read from if it has no others, the best first."""
TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "tokenizer.json")
"""Lists the files of a CLIP tokenizer; those that exist are read."""


def has_weights(part: str) -> bool:
    """Returns whether a part of a base is a network."""
    return not part.startswith(("tokenizer", "scheduler"))


def weights_stem(part: str) -> str:
    """Returns how the names of a part's files of weights begin."""
    return "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"


def weights_name(part: str) -> str:
    """Returns the path of a part's weights inside the base, if they are in one file of the usual name."""
    return f"{part}/{weights_stem(part)}.safetensors"


def pickle_name(part: str) -> str:
    """Returns the path of the pickle that old repositories of the hub have in place of a part's weights."""
    return f"{part}/{'pytorch_model' if part.startswith('text_encoder') else 'diffusion_pytorch_model'}.bin"


def weights_files(part: str, there: Collection[str]) -> list[str]:
    """Returns the paths of a part's weights among the paths that are `there`: one file, or an index and its shards; none if it has none.

    A variant is taken only if the part has no other weights, and no pickle that could be converted.
    """
    if (whole := weights_name(part)) in there:
        return [whole]
    kinds = ("",) if pickle_name(part) in there else ("", *VARIANTS)
    for kind in kinds:
        stem, ending = f"{part}/{weights_stem(part)}", f".{kind}" if kind else ""
        if (whole := f"{stem}{ending}.safetensors") in there:
            return [whole]
        if (index := f"{stem}.safetensors.index{ending}.json") in there:
            number, ending = r"-[0-9]+-of-[0-9]+", re.escape(ending)
            shard = re.compile(rf"{re.escape(stem)}(?:{ending}{number}|{number}{ending})\.safetensors")
            shards = sorted(name for name in there if shard.fullmatch(name))
            if shards and len(shards) == int(shards[0].rpartition("-of-")[2].partition(".")[0]):
                return [index, *shards]
    return []


@dataclass(frozen=True)
class Layout:
    """Describes the files of the bases that a generator accepts."""

    about: str
    """Describes such a base, for messages."""
    required: tuple[str, ...]
    """Lists the parts that each such base has."""
    optional: tuple[str, ...] = ()
    """Lists the parts that only some of them have."""
    index: bool = False
    """Says whether model_index.json is read."""
    tokenizer: tuple[str, ...] = TOKENIZER
    """Lists the files of a tokenizer; those that exist are read."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Returns all parts that such a base may have."""
        return self.required + self.optional

    @property
    def pickles(self) -> dict[str, str]:
        """Maps the weights that a base may have to the pickles in their place."""
        return {weights_name(part): pickle_name(part) for part in self.parts if has_weights(part)}

    def small_names(self, part: str) -> tuple[str, ...]:
        """Returns the names of a part's files beside its weights; the first one holds its configuration."""
        if part.startswith("tokenizer"):
            return self.tokenizer
        return ("scheduler_config.json",) if part == "scheduler" else ("config.json",)

    def choose(self, there: Collection[str], without: Sequence[str] = ()) -> list[str]:
        """Returns the paths that are read, of those that are `there`; `without` names the parts whose weights are not."""
        found = [INDEX] if self.index and INDEX in there else []
        for part in self.parts:
            found += [path for name in self.small_names(part) if (path := f"{part}/{name}") in there]
        for part in self.parts:
            if has_weights(part) and part not in without:
                found += weights_files(part, there)
        return found

    def missing_names(self, part: str, there: Collection[str]) -> list[str]:
        """Returns the names of the files, beside its weights, without which a part cannot be loaded and which are not `there`."""
        if part.startswith("tokenizer"):
            if {"tokenizer.json", "spiece.model"}.intersection(there) & {*self.tokenizer}:
                return []
            return [name for name in ("vocab.json", "merges.txt") if name not in there]
        return [name for name in self.small_names(part) if name not in there]

    def missing(self, there: Collection[str]) -> list[str]:
        """Returns the paths of the files without which a base cannot be loaded and which are not `there`; weights come first."""
        parts = [p for p in self.parts if p in self.required or any(name.startswith(f"{p}/") for name in there)]
        weights = [weights_name(part) for part in parts if has_weights(part) and not weights_files(part, there)]
        small = [
            f"{part}/{name}"
            for part in parts
            for name in self.missing_names(part, [n for n in self.small_names(part) if f"{part}/{n}" in there])
        ]
        return ([INDEX] if self.index and INDEX not in there else []) + weights + small


STABLE_DIFFUSION = Layout(
    "a Stable Diffusion 1.x or 2.x in diffusers' layout", ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
)
TEXT_TO_IMAGE = Layout(
    "a text-to-image model in diffusers' layout",
    required=("vae", "text_encoder", "tokenizer", "scheduler"),
    optional=("unet", "transformer", "text_encoder_2", "text_encoder_3", "tokenizer_2", "tokenizer_3"),
    index=True,
    tokenizer=(*TOKENIZER, "added_tokens.json", "spiece.model", "chat_template.jinja", "chat_template.json"),
)
