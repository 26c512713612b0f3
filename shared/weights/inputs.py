"""Reads hub weights, which the stage `weights` committed and other stages have as inputs, and brings them to local disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.artifacts.manifest import Manifest
from shared.artifacts.remote import local_file
from shared.config.stages import GenerateConfig
from shared.context import Context
from shared.digests import file_digest
from shared.errors import DataError
from shared.names import path_below
from shared.weights.files import TIMM_FILE
from shared.weights.roles import ADAPTER, BASE, FEW_STEP, JUDGES

PREFIX = "weights/"


@dataclass(frozen=True)
class FewStepAdapter:
    """Describes the LoRA with which images are drawn in a few steps."""

    name: str
    """Names it as the study does, for messages."""
    path: Path
    """Points to the file on local disk."""
    scheduler: str
    """Names how steps are made, as `FewStep.scheduler` does."""


@dataclass(frozen=True)
class FetchedBase:
    """Reads the base model from the store."""

    manifest: Manifest
    context: Context

    @property
    def commit(self) -> str:
        """Returns the commit of its repository."""
        return str(self.manifest.summary["commit"])

    @property
    def names(self) -> list[str]:
        """Returns the paths of its files in the repository."""
        return [file.name for file in self.manifest.files]

    def folder(self, names: Sequence[str]) -> Path:
        """Returns a folder with those of the named files that the base has, under their paths in the repository."""
        folder = self.context.scratch / "base"
        for file in self.manifest.files:
            if file.name not in names:
                continue
            path = path_below(folder, file.name, f"base model {self.commit[:8]}", replaces=True)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)  # a link into a cache that was emptied
                path.symlink_to(self.context.artifacts.fetch(file).resolve())
        folder.mkdir(exist_ok=True)
        return folder


def fetched_base(context: Context) -> FetchedBase | None:
    """Returns the base model, or None if the stage has none as an input."""
    return FetchedBase(context.input(BASE), context) if BASE in context.task.inputs else None


def few_step_adapter(config: GenerateConfig, context: Context) -> FewStepAdapter | None:
    """Returns the LoRA for few steps on local disk, or None if the study names none.

    Raises DataError if there is no such file, or another one than when the study was planned; UnavailableError if its bucket does not answer.
    """
    few = config.generate.few_step
    if few is None:
        return None
    if few.on_hub:
        path = context.fetch(context.input(FEW_STEP), few.hub_file)
        return FewStepAdapter(few.adapter, path, few.scheduler)
    path = local_file(few.adapter, context.settings, context.scratch)
    planned = config.weights.get(few.adapter)
    if planned is not None and (digest := file_digest(path)) != planned:
        raise DataError(
            f"{ADAPTER}: {few.adapter} has digest {digest}, but {planned} when the run began; start the run again"
        )
    return FewStepAdapter(few.adapter, path, few.scheduler)


def fetched_models(context: Context) -> dict[str, Path]:
    """Returns the safetensors files of the models from which an arm may start, by timm name."""
    roles = [role for role in context.task.inputs if role.startswith(PREFIX) and role not in (BASE, FEW_STEP, JUDGES)]
    return _files(context, roles)


def fetched_judges(context: Context) -> dict[str, Path]:
    """Returns the safetensors file of the judges' model, by timm name."""
    return _files(context, [JUDGES] if JUDGES in context.task.inputs else [])


def _files(context: Context, roles: Sequence[str]) -> dict[str, Path]:
    manifests = [context.input(role) for role in roles]
    return {str(m.config["name"]): context.fetch(m, TIMM_FILE) for m in manifests}
