"""Fetches a data set of the Hugging Face hub once, at a commit, into the cache: its Parquet files only.

The commands that a person runs fetch it; stages read the cache and never go online.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from shared.artifacts.disk import disk_errors
from shared.artifacts.hub_location import HubData, hub_folder, is_hub, parse_hub
from shared.data.sources.split_words import split_within
from shared.errors import ConfigError, DataError
from shared.log import Log
from shared.names import path_below, shown
from shared.settings import Settings
from shared.stop import StopSignal

SETTING = "dataset.root"
MOST_FILES = 20_000
SPARE = 1.05  # of the size of the data, that must be free
CONVERTED = "refs/convert/parquet"
"""Names the revision at which the hub keeps data sets that it converted to Parquet."""
WITHOUT_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK)
"""Lists the errors of file systems that have no hard links between two files."""
log = Log("fetch")


def fetch_data(location: str, settings: Settings, stop: StopSignal) -> str:
    """Fetches `hf://owner/name` into the cache, unless it is there, and returns its location at a commit, the newest if none is named.

    Raises ConfigError if there is no such data set or access is refused, DataError if it has no Parquet files, several sets of them, or more than the
    disk takes, and UnavailableError if the hub does not answer. An interrupted download continues.
    """
    data = parse_hub(location)
    if data.commit is not None and hub_folder(location, settings).is_dir():
        return location
    try:
        from shared.weights.hub import download, open_repository
    except ImportError as error:
        raise ConfigError(
            f"{SETTING}: {location} is fetched by the package huggingface_hub, which is not here; run `tailfill upload {location} s3://bucket/prefix` "
            "where it is, and name the bucket"
        ) from error
    repository = open_repository(data.name, data.revision, SETTING, settings, stop, "dataset")
    pinned = data.at(repository.commit)
    target = hub_folder(pinned, settings)
    if target.is_dir():
        return pinned
    names = _parquet(data, repository.sizes, repository.commit)
    size = sum(repository.sizes[name] for name in names)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    if size * SPARE > shutil.disk_usage(target.parent).free:
        raise DataError(
            f"{location}: its Parquet files have {size / 1e9:,.1f} GB, more than is free in {target.parent}; free some, or set TAILFILL_CACHE to another disk"
        )
    log.info("fetching a data set once", repository=data.name, commit=repository.commit, gigabytes=round(size / 1e9, 3))
    found = download(repository, names, settings, stop)
    with disk_errors(target), tempfile.TemporaryDirectory(prefix="fetch-", dir=target.parent) as folder:
        whole = Path(folder) / target.name
        for name, path in found.items():
            kept = path_below(whole, name.removeprefix(f"{data.folder}/") if data.folder else name, data.name)
            kept.parent.mkdir(parents=True, exist_ok=True)
            _link(path.resolve(), kept)
        try:
            whole.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster
                raise
    cached = path_below(repository.folder, f"datasets--{data.name.replace('/', '--')}", data.name)
    shutil.rmtree(cached, ignore_errors=True)
    return pinned


def ensure_data(root: str | None, settings: Settings, stop: StopSignal) -> None:
    """Fetches the data set that a study names, if it is one of the hub and at a commit; raises what `fetch_data` raises."""
    if root is not None and is_hub(root):
        hub_folder(root, settings)  # a study without a commit would change with the hub
        fetch_data(root, settings, stop)


def _parquet(data: HubData, sizes: Mapping[str, int], commit: str) -> Sequence[str]:
    """Returns the Parquet files of the folder; raises DataError if there are none, too many, or those of several data sets."""
    inside = f"{data.folder}/" if data.folder else ""
    names = sorted(name for name in sizes if name.lower().endswith(".parquet") and name.startswith(inside))
    if not names:
        kinds = sorted({PurePosixPath(name).suffix for name in sizes} - {"", ".md"})[:5]
        raise DataError(
            f"{data.at(commit)}: has no Parquet files{f' but {shown(kinds)}' if kinds else ''}; if the hub converted it, name {_url(data)}@{CONVERTED}, else "
            "fetch it and name the folder"
        )
    if len(names) > MOST_FILES:
        raise DataError(
            f"{data.at(commit)}: has {len(names):,} Parquet files, at most {MOST_FILES:,} are read; name a folder of it"
        )
    folders = {_config(name.removeprefix(inside)) for name in names}
    if len(folders) > 1:
        first, second = sorted(folder or "." for folder in folders)[:2]
        base = _url(data)
        raise DataError(
            f"{data.at(commit)}: has Parquet files of {len(folders)} data sets; name one: `tailfill init {base}/{first}@{commit}` or `tailfill init "
            f"{base}/{second}@{commit}`"
        )
    return names


def _url(data: HubData) -> str:
    """Returns the location without a revision."""
    return data.at("").removesuffix("@")


def _config(name: str) -> str:
    """Returns the folders of a file that name no split and are not called `data`: the name of one of several data sets."""
    parts = PurePosixPath(name).parts[:-1]
    return "/".join(part for part in parts if split_within(part) is None and part != "data")


def local_data(location: str, settings: Settings, stop: StopSignal) -> tuple[Path, str]:
    """Returns the folder with the data set that a person named, and its location at a commit."""
    pinned = fetch_data(location, settings, stop)
    return hub_folder(pinned, settings), pinned


def _link(file: Path, link: Path) -> None:
    """Links a file, without copying its gigabytes if the file system has links."""
    try:
        os.link(file, link)
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        shutil.copyfile(file, link)
