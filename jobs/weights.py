"""`weights`: downloads the weights that a study names on the Hugging Face hub, once, so that no other stage needs to go online.

For a generator's base it commits the files that generators read, under their paths in the repository; for a timm model it commits
`model.safetensors`. The summary names the repository and the commit.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shared.artifacts.manifest import Manifest
from shared.config.stages import WeightsConfig
from shared.context import Context
from shared.diffusion.generators import generator_kind
from shared.errors import ConfigError
from shared.log import Log
from shared.names import path_below
from shared.settings import Settings
from shared.stop import StopSignal
from shared.weights.inputs import TIMM_FILE

if TYPE_CHECKING:
    from shared.weights.hub import Repository

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
COMMIT_LENGTH = 40

log = Log("weights")


def run(config: WeightsConfig, context: Context) -> Manifest:
    """Downloads and commits the weights, then removes the downloaded copy: the store has them."""
    repository, files = weights(config, context.settings, context.stop)
    summary = {
        "repository": repository.name,
        "commit": repository.commit,
        "bytes": sum(path.stat().st_size for path in files.values()),
    }
    manifest = context.commit(files, summary)
    cached = f"models--{repository.name.replace('/', '--')}"
    shutil.rmtree(path_below(repository.folder, cached, repository.name), ignore_errors=True)
    return manifest


def weights(config: WeightsConfig, settings: Settings, stop: StopSignal) -> tuple[Repository, dict[str, Path]]:
    """Downloads the files of the weights and returns them by their paths in the repository.

    Raises ConfigError if there are none or access is denied, UnavailableError if the hub is unavailable, and Stopped.
    """
    from shared.weights.hub import download, open_repository

    if config.kind == "timm":
        from shared.weights.pretrained import hub_repository

        name, setting = hub_repository(config.name), "classifier.pretrained"
    else:
        name, setting = config.name, "finetune.base"
    repository = open_repository(name, config.revision, setting, settings, stop)
    if config.revision is None or len(config.revision) != COMMIT_LENGTH:
        pin = "classifier.revision" if config.kind == "timm" else "finetune.revision"
        log.warning(
            f"not pinned: another store may get another version; set {pin} to the commit before a study's first run",
            repository=name,
            commit=repository.commit,
        )
    return repository, download(repository, _files_to_download(config, repository.files, setting), settings, stop)


def _files_to_download(config: WeightsConfig, available: Mapping[str, object], setting: str) -> list[str]:
    """Returns the available files to download; raises ConfigError if a necessary one is missing."""
    if config.kind == "timm":
        _check_available(config, [TIMM_FILE], available, setting)
        return [TIMM_FILE]
    base = generator_kind(config.kind).base
    assert base is not None  # control plans this stage only for a generator with a base
    _check_available(config, base.needed, available, setting)
    return [name for name in base.read if name in available]


def _check_available(
    config: WeightsConfig, needed: Sequence[str], available: Mapping[str, object], setting: str
) -> None:
    for name in needed:
        if name in available:
            continue
        folder = name.rpartition("/")[0]
        pickled = [n for n in sorted(available) if n.endswith(PICKLES) and n.rpartition("/")[0] == folder]
        found = f"only the pickle {pickled[0]}, which could run code when read" if pickled else "no such file"
        remedy = (
            "name a classifier.revision that has it, or another model"
            if config.kind == "timm"
            else "name a finetune.revision that has it (on the hub, often refs/pr/<n>), or another base"
        )
        raise ConfigError(f"{setting} {config.name}: {name} is needed, and the hub has {found}; {remedy}")
