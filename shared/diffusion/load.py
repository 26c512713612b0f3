"""Loads a committed generator of any kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name

import torch

from shared.diffusion.generator import BaseSource, Generator, Load
from shared.diffusion.generators import generator_kind
from shared.errors import DataError


def load_generator(files: Mapping[str, Path], device: torch.device, source: BaseSource) -> Generator:
    """Returns the generator from its committed files, by name, on `device`; `source` says where its base is.

    Raises DataError if a file is missing, damaged or does not fit, UnavailableError if the base's bucket does not answer.
    """
    try:
        name = str(json.loads(files["generator.json"].read_bytes())["generator"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"generator.json: cannot be read ({error!r}); run finetune again (--rerun finetune)") from error
    try:
        kind = generator_kind(name)
    except DataError as error:
        raise DataError(f"generator.json: {error}; run finetune again (--rerun finetune)") from error
    load: Load = resolve_name(kind.load)
    return load(files, device, source)
