"""`weights`: downloads the weights that a study names on the Hugging Face hub, once, so that no other stage needs to go online.

For a generator's base it commits the files that generators read, under their paths in the repository. If an old repository has a pickle
(`.bin`) in place of a safetensors file, it is converted. For a timm model it commits `model.safetensors`, and for few steps the file of the
LoRA. The summary names the repository, the commit, and the digests of each converted file and of the pickle that it was made from.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.artifacts.manifest import Manifest
from shared.config.stages import PRETRAINED, WeightsConfig
from shared.context import Context
from shared.diffusion.generators import BaseFiles, generator_kind
from shared.diffusion.text_to_image.base_files import INDEX
from shared.digests import file_digest
from shared.errors import ConfigError
from shared.log import Log
from shared.names import path_below
from shared.settings import Settings
from shared.stop import StopSignal
from shared.weights.files import TIMM_FILE
from shared.weights.in_place import PICKLES, in_place
from shared.weights.roles import ADAPTER, BASE_SETTING, FEW_STEP_KIND, PINS

if TYPE_CHECKING:
    from shared.weights.hub import Repository

COMMIT_LENGTH = 40

log = Log("weights")


@dataclass(frozen=True)
class Weights:
    """Holds the weights of one commit of a repository, as they are committed."""

    repository: Repository
    files: Mapping[str, Path]
    """Maps the paths under which files are committed to the files on local disk."""
    converted: Mapping[str, Mapping[str, str]]
    """Maps those of these paths that were converted to the digest of the result, and to the path and the digest of the pickle."""


def run(config: WeightsConfig, context: Context) -> Manifest:
    """Downloads, converts if necessary and commits the weights, then removes the downloaded copy: the store has them."""
    found = weights(config, context.settings, context.scratch, context.stop)
    repository = found.repository
    summary = {
        "repository": repository.name,
        "commit": repository.commit,
        "bytes": sum(path.stat().st_size for path in found.files.values()),
    }
    if found.converted:
        summary["converted"] = found.converted
    manifest = context.commit(found.files, summary)
    cached = f"models--{repository.name.replace('/', '--')}"
    shutil.rmtree(path_below(repository.folder, cached, repository.name), ignore_errors=True)
    return manifest


def weights(config: WeightsConfig, settings: Settings, scratch: Path, stop: StopSignal) -> Weights:
    """Downloads the files of the weights, and converts pickles into `scratch`.

    Raises ConfigError if files are missing or access is denied, DataError for a pickle that is not plain tensors, UnavailableError if the
    hub is unavailable, and Stopped.
    """
    from shared.weights.hub import download, open_repository

    if config.kind == "timm":
        found = timm_weights(config.name, config.revision, settings, stop)
        _warn_unless_pinned(config, PRETRAINED, found.repository)
        return found
    if config.kind == FEW_STEP_KIND:
        return _few_step(config, settings, stop)
    repository = open_repository(config.name, config.revision, BASE_SETTING, settings, stop)
    _warn_unless_pinned(config, BASE_SETTING, repository)
    base = generator_kind(config.kind).base
    assert base is not None  # control plans this stage only for a generator with a base
    sources = _base_sources(base, repository)
    if base.check_index is not None:
        (index,) = download(repository, [INDEX], settings, stop).values()
        base.check_index(index.read_bytes(), repository.name)
    downloaded = download(repository, list(sources.values()), settings, stop)
    files = {name: downloaded[source] for name, source in sources.items()}
    converted = {}
    for name, source in sources.items():
        if name != source:
            stop.raise_if_set()
            files[name] = path_below(scratch, name, repository.name)
            converted[name] = _convert(base, repository, source, downloaded[source], files[name])
    return Weights(repository, files, converted)


def timm_weights(model: str, revision: str | None, settings: Settings, stop: StopSignal) -> Weights:
    """Downloads the weights of a timm model; raises what `weights` raises."""
    from shared.weights.hub import download, open_repository
    from shared.weights.pretrained import hub_repository

    repository = open_repository(hub_repository(model), revision, PRETRAINED, settings, stop)
    _check_timm(model, repository.files)
    return Weights(repository, download(repository, [TIMM_FILE], settings, stop), {})


def _few_step(config: WeightsConfig, settings: Settings, stop: StopSignal) -> Weights:
    """Downloads the LoRA for few steps; raises what `weights` raises."""
    from shared.weights.hub import download, open_repository

    assert config.file is not None  # control plans no LoRA without a file
    repository = open_repository(config.name, config.revision, ADAPTER, settings, stop)
    _warn_unless_pinned(config, ADAPTER, repository)
    if config.file not in repository.files:
        there = [name for name in sorted(repository.files) if name.endswith(".safetensors")]
        remedy = f"set generate.few_step.file to {' or '.join(there)}" if there else "name another repository"
        raise ConfigError(f"{ADAPTER} {config.name}@{repository.commit[:8]}: has no {config.file}; {remedy}")
    return Weights(repository, download(repository, [config.file], settings, stop), {})


def _warn_unless_pinned(config: WeightsConfig, setting: str, repository: Repository) -> None:
    if config.revision is None or len(config.revision) != COMMIT_LENGTH:
        log.warning(
            f"not pinned: another store may get another version; set {PINS[setting]} to the commit before a study's first run",
            repository=repository.name,
            commit=repository.commit,
        )


def _check_timm(model: str, available: Collection[str]) -> None:
    if TIMM_FILE in available:
        return
    pickled = [name for name in sorted(available) if name.endswith(PICKLES) and "/" not in name]
    found = f"only the pickle {pickled[0]}, which could run code when read" if pickled else "no such file"
    raise ConfigError(
        f"classifier.pretrained {model}: {TIMM_FILE} is needed, and the hub has {found}; "
        "name a classifier.revision that has it, or another model"
    )


def _base_sources(base: BaseFiles, repository: Repository) -> dict[str, str]:
    """Maps the files of a base to those to download, which differ for a pickle; raises ConfigError if the repository lacks one."""
    available = repository.files
    sources = {name: name for name in base.choose(list(available))}
    parts = {name.rpartition("/")[0] for name in sources if name.endswith(".safetensors")}
    sources |= {
        name: pickle
        for name, pickle in base.pickles.items()
        if pickle in available and name.rpartition("/")[0] not in parts
    }
    if missing := base.missing(sources):
        first = missing[0]
        needed = f"neither {first} nor {base.pickles[first]}" if first in base.pickles else f"no {first}"
        more = f", and lacks {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConfigError(
            f"finetune.base {repository.name}@{repository.commit[:8]}: has {needed}{more}{in_place(first, available)}; {_remedy(base)}"
        )
    return sources


def _convert(base: BaseFiles, repository: Repository, source: str, path: Path, target: Path) -> dict[str, str]:
    """Converts a pickle and returns both digests; raises DataError if it holds anything but tensors."""
    from shared.weights.pickles import convert

    log.info("converting a pickle to safetensors", repository=repository.name, file=source)
    convert(path, target, f"finetune.base {repository.name}@{repository.commit[:8]}: {source}", _remedy(base))
    return {
        "sha256": file_digest(target),
        "from": source,
        "from_sha256": repository.files[source] or file_digest(path),  # the download was checked against the hub's
    }


def _remedy(base: BaseFiles) -> str:
    return f"take finetune: {{{base.instead}}}, or name another finetune.revision (on the hub, often refs/pr/<n> has safetensors)"
