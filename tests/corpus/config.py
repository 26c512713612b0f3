"""Holds study files and `--set` values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from shared.config.load import load_study
from tests.corpus.case import Case

STUDY = """\
name: corpus
dataset: {source: garments, resolution: 32}
rare: {below: 20}
finetune: {generator: pixel, resolution: 32}
experiments: [{name: real, images: real}]
"""


def _study(text: str | bytes, *sets: str) -> Callable[[Path], object]:
    """Returns an attempt that writes a study file and loads it with `--set` values."""

    def attempt(folder: Path) -> object:
        file = folder / "study.yaml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_study(file, sets).name

    return attempt


CASES = [Case("a small study", _study(STUDY), 0, ("corpus",))]
