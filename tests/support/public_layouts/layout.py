"""Draws the layouts of public data sets: the real names of folders and files and the real form of the label files, with images of noise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Counts = Mapping[str, int]
"""Maps classes to numbers of images."""
Splits = Mapping[str, Counts]
"""Maps splits to counts; the only key is blank if the data name no split."""


@dataclass(frozen=True)
class Layout:
    """Describes what a person expects of `init` for a data set."""

    name: str
    seen: str
    """Says where the form was seen: a repository and path, or a page."""
    draw: Callable[[Drawing], None]
    groups: Sequence[Splits] = ()
    """Lists the label groups, each with the images of its classes per split."""
    rare: Sequence[str] = ()
    """Lists the classes that are filled."""
    units: int | None = None
    """Counts the patients, places and the like that stay in one split; None if there are none."""
    says: Sequence[str] = ()
    """Lists what the lines of `init` say."""
    refused: Sequence[str] = ()
    """Lists what the error says if the data cannot be read as they are."""


class Drawing:
    """Writes a data set into a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._drawn = 0

    def images(self, names: Iterable[str], side: int = 20) -> None:
        """Writes a different image of noise for each name, which ends as the format does."""
        for name in names:
            path = self._at(name)
            self._drawn += 1
            pixels = np.random.default_rng(self._drawn).integers(0, 256, (side, side, 3), np.uint8)
            Image.fromarray(pixels).save(path)

    def text(self, name: str, *lines: str) -> None:
        """Writes the lines, each with a line break."""
        self._at(name).write_text("".join(f"{line}\n" for line in lines))

    def json(self, name: str, content: Any) -> None:
        """Writes JSON."""
        self._at(name).write_text(json.dumps(content))

    def binary(self, name: str, content: bytes) -> None:
        """Writes bytes."""
        self._at(name).write_bytes(content)

    def copy(self, folder: str, to: str) -> None:
        """Writes a folder once more, as an archive that was packed twice has it."""
        shutil.copytree(self.root / folder, self._at(to))

    def _at(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def numbered(counts: Counts, first: int = 1) -> Iterator[tuple[str, int]]:
    """Yields each class as often as it has images, with a number that goes on over all classes."""
    number = first
    for name, count in counts.items():
        for _ in range(count):
            yield name, number
            number += 1


def together(*splits: Counts) -> dict[str, int]:
    """Returns the sums of counts."""
    return {
        name: sum(counts.get(name, 0) for counts in splits)
        for name in dict.fromkeys(n for each in splits for n in each)
    }
