"""Says what `hf://owner/name` names, and where in the cache such a data set lies. Nothing here goes online."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from shared.artifacts.disk import disk_errors
from shared.errors import ConfigError, DataError
from shared.names import shown
from shared.settings import Settings

HUB = "hf://"
DATASETS = "datasets"
"""Names the folder of a cache with data sets of the hub."""
_HUB = re.compile(
    r"hf://(?P<name>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?P<folder>(?:/[A-Za-z0-9_][\w.+-]{0,95}){0,8})(?:@(?P<revision>[A-Za-z0-9][\w./-]{0,199}))?",
    re.ASCII,
)
_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class HubData:
    """Names a data set of the Hugging Face hub: `hf://owner/name`, with a folder in it or without, `@` a revision."""

    name: str
    folder: str
    """Gives the path of the folder in the repository, blank for all of it."""
    revision: str | None

    @property
    def commit(self) -> str | None:
        """Returns the revision if it is a commit, which never changes."""
        return self.revision if self.revision is not None and _COMMIT.fullmatch(self.revision) else None

    def at(self, commit: str) -> str:
        """Returns the location of the same data set at a commit."""
        return f"{HUB}{self.name}{f'/{self.folder}' if self.folder else ''}@{commit}"


def is_hub(location: str) -> bool:
    """Returns whether a location is a data set of the Hugging Face hub."""
    return location.startswith(HUB)


def parse_hub(location: str) -> HubData:
    """Returns what `hf://owner/name` names; raises ConfigError if it has another form."""
    match = _HUB.fullmatch(location)
    parts = location.removeprefix(HUB).replace("@", "/").split("/")
    if match is None or any(part in (".", "..") for part in parts):
        raise ConfigError(
            f"{shown(location)}: must be like hf://owner/name, hf://owner/name/folder or hf://owner/name@commit"
        )
    return HubData(match["name"], match["folder"].strip("/"), match["revision"])


def hub_folder(location: str, settings: Settings) -> Path:
    """Returns the folder in the cache that holds a data set of the hub once it was fetched; raises ConfigError if it names no commit."""
    data = parse_hub(location)
    if data.commit is None:
        raise ConfigError(
            f"dataset.root: {location} names no commit, so that the data may change; `tailfill init {location}` writes a study with one"
        )
    folder = settings.cache / DATASETS / data.name.replace("/", "--")
    return folder / data.commit / (data.folder.replace("/", "--") or "all")


def share_fetched(cache: Path, other: Path) -> None:
    """Links the data sets of the hub in a cache into another cache, from which stages read them."""
    fetched, link = cache / DATASETS, other / DATASETS
    if fetched.is_dir() and not link.exists():
        with disk_errors(link):
            other.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)  # a link to a cache that was emptied
            link.symlink_to(fetched.resolve())


def fetched_folder(location: str, settings: Settings) -> Path:
    """Returns the folder with a data set of the hub that was fetched before; raises DataError if it was not: no stage goes online for it."""
    folder = hub_folder(location, settings)
    if not folder.is_dir():
        raise DataError(
            f"dataset.root: {location} is not in the cache of this machine, {settings.cache}; `tailfill run` and `tailfill validate --plan` fetch "
            f"it, and for a cluster `tailfill upload {location} s3://bucket/prefix` copies it into a bucket, which dataset.root must name then"
        )
    return folder
