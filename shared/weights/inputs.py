"""Reads hub weights, which the stage `weights` committed and other stages have as inputs, and brings them to local disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.artifacts.manifest import Manifest
from shared.context import Context
from shared.names import path_below
from shared.weights.files import TIMM_FILE
from shared.weights.roles import BASE, JUDGES

PREFIX = "weights/"


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


def fetched_models(context: Context) -> dict[str, Path]:
    """Returns the safetensors files of the models from which an arm may start, by timm name."""
    roles = [role for role in context.task.inputs if role.startswith(PREFIX) and role not in (BASE, JUDGES)]
    return _files(context, roles)


def fetched_judges(context: Context) -> dict[str, Path]:
    """Returns the safetensors file of the judges' model, by timm name."""
    return _files(context, [JUDGES] if JUDGES in context.task.inputs else [])


def _files(context: Context, roles: Sequence[str]) -> dict[str, Path]:
    manifests = [context.input(role) for role in roles]
    return {str(m.config["name"]): context.fetch(m, TIMM_FILE) for m in manifests}
