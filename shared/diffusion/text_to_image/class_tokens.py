"""Gives each rare class tokens of its own, whose embeddings are trained: textual inversion (Gal et al. 2023, arXiv 2208.01618).

`tokens-<column>.safetensors` holds the embeddings of the class in that column of the labels, in the form that diffusers'
`load_textual_inversion` reads: one tensor `[n, d]` under the first token's name. The others have the names that diffusers gives them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from shared.data.imageset import ImageSet
from shared.data.schema import LabelSchema, class_counts
from shared.diffusion.text_to_image.caption import phrases_of
from shared.diffusion.text_to_image.families.family import Family
from shared.diffusion.text_to_image.model import Trained
from shared.errors import ConfigError, DataError
from shared.tensors import check_shapes, read_tensors, save_tensors

ENCODER, TOKENIZER = "text_encoder", "tokenizer"


@dataclass(frozen=True)
class ClassTokens:
    """Names the tokens of classes, `count` per class."""

    schema: LabelSchema
    columns: Sequence[int]
    """Lists the columns of the classes in the labels."""
    count: int
    phrases: Mapping[str, str]
    """Maps classes to their phrases, as the study sets them."""

    @classmethod
    def of_rare(
        cls, images: ImageSet, rare: NDArray[np.int64], count: int, phrases: Mapping[str, str]
    ) -> ClassTokens | None:
        """Returns the tokens of the rare classes that have training images, or None if `count` is 0; raises ConfigError if there is none."""
        if not count:
            return None
        counts = class_counts(images.labels)
        columns = [int(column) for column in rare if counts[column]]
        if not columns:
            raise ConfigError(
                f"finetune.class_tokens: {count}, but no training image has a rare class; raise rare.below, name rare.classes, or set it to 0"
            )
        return cls(images.schema, columns, count, phrases)

    def names(self, column: int) -> list[str]:
        """Returns the names of a class's tokens."""
        first = f"<class-{column}>"
        return [first, *(f"{first}_{number}" for number in range(1, self.count))]

    def captioned(self) -> dict[str, str]:
        """Returns the phrases of captions: those of classes with tokens begin with these."""
        plain = phrases_of(self.schema, self.phrases)
        own = {}
        for column in self.columns:
            name = self.schema.class_names[column]
            own[name] = " ".join([*self.names(column), plain[name]])
        return {**self.phrases, **own}

    def extend_tokenizer(self, tokenizer: Any) -> Any:
        """Returns the tokenizer, which knows the tokens from now on; raises DataError if it knew one before."""
        names = [name for column in self.columns for name in self.names(column)]
        if tokenizer.add_tokens(names) != len(names):
            raise DataError(
                f"finetune.base: its tokenizer has a token {names[0]} already, as tailfill names those of classes; name another base"
            )
        return tokenizer

    def extend_encoder(self, encoder: Any, first: int, embeddings: torch.Tensor) -> Any:
        """Returns the text encoder, which embeds the tokens by `embeddings` `[len(columns) * count, d]` from now on.

        `first` is the number of the first of them, which is how many tokens the tokenizer had before.
        """
        encoder.set_input_embeddings(ExtendedEmbedding(encoder.get_input_embeddings(), first, embeddings))
        return encoder

    def first_embeddings(self, tokenizer: Any, encoder: Any) -> torch.Tensor:
        """Returns the embeddings from which the training begins, float32: those of the tokens of each class's phrase, in turn."""
        plain, known = phrases_of(self.schema, self.phrases), encoder.get_input_embeddings().weight
        rows = []
        for column in self.columns:
            phrase = plain[self.schema.class_names[column]]
            numbers = tokenizer(phrase, add_special_tokens=False).input_ids or [tokenizer.unk_token_id]
            rows += [numbers[position % len(numbers)] for position in range(self.count)]
        first: torch.Tensor = known.detach()[rows].float().clone()
        return first

    def files(self) -> Iterator[tuple[int, str, slice]]:
        """Yields the column, the file and the rows of the embeddings of each class."""
        for number, column in enumerate(self.columns):
            yield column, f"tokens-{column}.safetensors", slice(number * self.count, (number + 1) * self.count)

    def save(self, encoder: Any, out: Path) -> None:
        """Writes the embeddings of the tokens of a text encoder into `out`, a file per class."""
        own = encoder.get_input_embeddings().own
        for column, file, rows in self.files():
            save_tensors({self.names(column)[0]: own[rows]}, out / file)

    def read(self, files: Mapping[str, Path], width: int) -> torch.Tensor:
        """Returns the embeddings `[len(columns) * count, width]` that a training wrote; raises DataError if a file is missing or does not fit."""
        found = []
        for column, file, _ in self.files():
            tensors, name = read_tensors(files, file, "finetune"), self.names(column)[0]
            check_shapes(file, tensors, {name: torch.empty(self.count, width, device="meta")}, "finetune")
            found.append(tensors[name])
        return torch.cat(found)


class ExtendedEmbedding(nn.Module):
    """Embeds tokens of its own beside those that a text encoder knows; only their embeddings are trained."""

    def __init__(self, known: nn.Embedding, first: int, own: torch.Tensor) -> None:
        """Takes the number `first` of the first own token; the rows of `known` from there on belong to no token (encoders may have such)."""
        super().__init__()
        self.known, self.first = known, first
        self.own = nn.Parameter(own)

    @property
    def num_embeddings(self) -> int:
        """Returns the number of tokens."""
        return self.first + len(self.own)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Returns the embeddings `[n, t, d]` of token numbers `[n, t]`."""
        known = self.known(numbers.clamp(max=self.first - 1))
        own = self.own[(numbers - self.first).clamp(min=0)].to(known.dtype)
        return torch.where((numbers >= self.first).unsqueeze(-1), own, known)


class WithClassTokens:
    """Reads what a fine-tuning wrote, and gives the text encoder and its tokenizer the tokens of classes."""

    def __init__(self, trained: Trained, tokens: ClassTokens, files: Mapping[str, Path], family: Family) -> None:
        """Raises DataError if a file is missing or does not fit the base."""
        self._trained, self._tokens = trained, tokens
        self._embeddings = tokens.read(files, family.base.value(ENCODER, "hidden_size", int))

    def load(self, part: str, dtype: torch.dtype, merge: bool = False) -> Any:
        """Returns a part with the trained weights (see `Trained.load`)."""
        found = self._trained.load(part, dtype, merge)
        if part == TOKENIZER:
            return self._tokens.extend_tokenizer(found)
        if part != ENCODER:
            return found
        first = len(self._trained.load(TOKENIZER, dtype))
        return self._tokens.extend_encoder(found, first, self._embeddings.to(dtype))
