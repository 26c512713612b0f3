"""Copies data sets and weights from a bucket to local disk."""

from __future__ import annotations

import hashlib
import os
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from shared.artifacts.disk import disk_errors, whole_file
from shared.artifacts.hub_location import fetched_folder, is_hub
from shared.artifacts.open import is_s3, open_bucket, split_s3
from shared.artifacts.store import NotFound
from shared.errors import DataError
from shared.log import Log
from shared.names import LONGEST_PART, path_below, shown
from shared.parallel import in_threads
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.artifacts.s3 import Listed

log = Log("fetch")

PARALLEL = 16  # downloads at once; round trips take most of the time of small files


def expanded(location: str) -> Path:
    """Returns the path of a local location, in which `~` stands for a home folder; raises DataError if there is none, or if no path can be so."""
    if "\0" in location:
        raise DataError(f"{shown(location)}: has a NUL, which no path has; remove it")
    if any(len(os.fsencode(part)) > LONGEST_PART for part in location.split("/")):
        raise DataError(
            f"{shown(location)}: has a part of over {LONGEST_PART} bytes, which no file system takes; shorten it"
        )
    try:
        return Path(location).expanduser()
    except RuntimeError:
        user = location.partition("/")[0]
        raise DataError(
            f"{location}: there is no home folder {user}; write the whole path, or ./{user} if that is a name"
        ) from None


def local_folder(root: str, settings: Settings, scratch: Path) -> Path:
    """Returns a local folder with the files of `root`: the folder itself, that of `hf://owner/name` in the cache, or a copy in `scratch` of
    `s3://bucket/prefix`.

    Raises DataError if the folder does not exist, if nothing is under the prefix, or if a key would leave the folder.
    """
    if is_hub(root):
        return fetched_folder(root, settings)
    if not is_s3(root):
        folder = expanded(root)
        if not folder.is_dir():
            raise DataError(f"{root}: there is no such folder; name an existing one or s3://bucket/prefix")
        return folder
    store = open_bucket(*split_s3(root), settings)
    target = path_below(scratch, PurePosixPath(split_s3(root)[1] or split_s3(root)[0]).name, root)
    files = store.files()
    if not files:
        raise DataError(f"{root}: there is nothing under this prefix; check bucket and prefix")
    # also checks every key before anything is written
    for folder in {path_below(target, file.key, root, DataError).parent for file in files}:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def fetch(file: Listed) -> None:
        path = path_below(target, file.key, root, DataError)
        try:
            with disk_errors(path):  # a key may be another's folder
                store.get_file(file.key, path, file.size)
        except NotFound:
            raise DataError(f"{store.url}/{file.key}: vanished while it was copied; run again") from None

    with closing(in_threads(fetch, files, PARALLEL)) as fetched:
        for _ in log.progress(fetched, f"download {root}", total=len(files), unit="files"):
            pass
    return target


def local_file(location: str, settings: Settings, scratch: Path | None = None) -> Path:
    """Returns a local file: the path itself, or a copy of the object `s3://bucket/key`; raises DataError if it does not exist.

    The copy is in `scratch`, or in the cache if that is None; each call downloads the object again.
    """
    if not is_s3(location):
        path = expanded(location)
        if not path.is_file():
            raise DataError(f"{location}: there is no such file; name an existing one or s3://bucket/key")
        return path
    bucket, key = split_s3(location)
    folder = scratch or settings.cache / "remote" / hashlib.sha256(location.encode()).hexdigest()[:16]
    target = path_below(folder, PurePosixPath(key or bucket).name, location)
    try:
        with whole_file(target) as temporary:
            open_bucket(bucket, "", settings).get_file(key, temporary)
    except NotFound:
        raise DataError(f"{location}: there is no such object; check bucket and key") from None
    return target
