"""Hub weights as the stages that use them find them: inputs that the stage `weights` committed, brought to local disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.artifacts.manifest import Manifest
from shared.context import Context
from shared.names import path_below
from shared.weights.roles import BASE, JUDGES

TIMM_FILE = "model.safetensors"
"""The file of a timm repository that is committed."""
PREFIX = "weights/"


@dataclass(frozen=True)
class FetchedBase:
    """A base model in the store."""

    manifest: Manifest
    context: Context

    @property
    def commit(self) -> str:
        """Of its repository."""
        return str(self.manifest.summary["commit"])

    def folder(self, names: Sequence[str]) -> Path:
        """A folder that holds these of its files, as far as it has them, under their paths in the repository."""
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
    """The base model, where the stage was given one."""
    return FetchedBase(context.input(BASE), context) if BASE in context.task.inputs else None


def fetched_models(context: Context) -> dict[str, Path]:
    """Safetensors of the models that an arm may begin with, by timm name."""
    roles = [role for role in context.task.inputs if role.startswith(PREFIX) and role not in (BASE, JUDGES)]
    return _files(context, roles)


def fetched_judges(context: Context) -> dict[str, Path]:
    """Safetensors of the judges' model, by timm name."""
    return _files(context, [JUDGES] if JUDGES in context.task.inputs else [])


def _files(context: Context, roles: Sequence[str]) -> dict[str, Path]:
    manifests = [context.input(role) for role in roles]
    return {str(m.config["name"]): context.fetch(m, TIMM_FILE) for m in manifests}
