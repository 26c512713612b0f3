"""Opens a committed generator, whichever it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from shared.diffusion.generator import Generator
from shared.errors import DataError
from shared.fetched import FetchedBase
from shared.settings import Settings


def load_generator(
    files: Mapping[str, Path],
    device: torch.device,
    settings: Settings,
    scratch: Path,
    base: str | None = None,
    fetched: FetchedBase | None = None,
) -> Generator:
    """The generator whose committed files these are, by name, on `device`.

    `scratch` is a folder for what a base model in a bucket needs, `base` where that model lies now, if not where it did, `fetched`
    that model where it came from the hub. Raises DataError where a file is missing, damaged or does not fit, UnavailableError where
    the base's bucket is away.
    """
    try:
        kind = json.loads(files["generator.json"].read_bytes())["generator"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"generator.json: cannot be read ({error!r}); run finetune again (--rerun finetune)") from error
    if kind == "pixel":
        from shared.diffusion.pixel import PixelGenerator

        return PixelGenerator.load(files, device)
    if kind == "stable-diffusion":
        from shared.diffusion.stable_diffusion import StableDiffusion

        return StableDiffusion.load(files, device, settings, scratch, base, fetched)
    raise DataError(f"generator.json: generator must be pixel or stable-diffusion, got {kind!r}; run finetune again")
