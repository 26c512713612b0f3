"""Implements `tailfill upload`: copies a folder of images or weights into a bucket, where the stages on a cluster read it.

If it is killed, the same command continues: an object appears complete or not at all, and those that exist already are not sent again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.artifacts.disk import disk_errors
from shared.artifacts.hub_location import is_hub
from shared.artifacts.open import is_s3, open_bucket, split_s3
from shared.artifacts.store import NotFound
from shared.data.sources.digest import is_label_file
from shared.data.sources.members import left_behind
from shared.data.sources.table import SOURCES
from shared.diffusion.text_to_image.base_files import INDEX
from shared.digests import file_digest
from shared.errors import ConfigError, DataError
from shared.log import Log
from shared.names import LONGEST_NAME, name_fault, path_below, shown
from shared.parallel import in_threads
from shared.settings import Settings
from shared.stop import StopSignal
from shared.weights.hub_data import local_data

if TYPE_CHECKING:
    from shared.artifacts.s3 import Listed, S3Store

log = Log("upload")

PARALLEL = 16  # small files at the same time, as most of their time is round trips
PARALLEL_BIG = 3  # big files at the same time; each is sent in several parts at once
DENOISERS = ("unet/", "transformer/")
"""Lists the folders of which a text-to-image base has one."""
WEIGHTS = (
    ".safetensors"  # different weights of the same shapes have the same size, so that these are compared by content
)
LONGEST_KEY = LONGEST_NAME - 200  # bytes; the prefix is part of the key


@dataclass(frozen=True)
class UploadResult:
    """Describes the content of the bucket after an upload."""

    root: str
    """Gives the target, `s3://bucket/prefix`."""
    files: int
    """Counts the files in the folder."""
    bytes: int
    """Gives the total size of these files."""
    sent: int
    """Counts the files that were uploaded; the others existed already."""
    others: tuple[str, ...]
    """Lists the objects below the target that are not in the folder. They are kept, and a study reads them too."""
    setting: str
    """Gives the path of the study's value that names such a folder."""


def upload(data: Path | str, target: str, settings: Settings, as_json: bool) -> str:
    """Copies the files of a folder, or of `hf://owner/name`, that are missing or differ, and returns the text for stdout.

    Raises ConfigError if the target is not in a bucket, DataError before anything is sent if the folder has a file that cannot be copied, and
    the errors of the bucket.
    """
    if not is_s3(target):
        raise ConfigError(f"{target}: must be like s3://bucket/prefix")
    folder = local_data(str(data), settings, StopSignal())[0] if is_hub(str(data)) else Path(data)
    files = list_files(folder)
    store = open_bucket(*split_s3(target), settings)
    existing = {listed.key: listed for listed in store.files()}
    unsent = [name for name in files if name not in existing or existing[name].size != files[name].stat().st_size]
    same_size = sorted(files.keys() - set(unsent))
    unsent += [name for name in same_size if by_content(name) and not _same(store, existing[name], files[name])]
    with closing(_send(store, {name: files[name] for name in sorted(unsent)})) as sent:
        for _ in log.progress(sent, f"upload to {store.url}", len(files), "files", len(files) - len(unsent)):
            pass
    result = UploadResult(
        root=store.url,
        files=len(files),
        bytes=sum(path.stat().st_size for path in files.values()),
        sent=len(unsent),
        others=tuple(sorted(existing.keys() - files.keys())),
        setting=_setting(files),
    )
    return json.dumps(result.__dict__) if as_json else describe(result, folder)


def describe(result: UploadResult, folder: Path) -> str:
    """Returns the result as text."""
    existed = result.files - result.sent
    lines = [
        f"{result.files} files ({result.bytes / 2**20:,.1f} MiB) are in {result.root}: {result.sent} uploaded, {existed} existed already"
    ]
    if result.others:
        lines.append(
            f"{len(result.others)} objects there are not in {folder} (first {result.others[0]}); they were kept, and a study reads them too"
        )
    file = f"/{{file}}{WEIGHTS}" if result.setting == "classifier.pretrained" else ""
    return "\n".join([*lines, f"in the study: {result.setting}: {result.root}{file}"])


def list_files(folder: Path) -> dict[str, Path]:
    """Returns all files below a folder by the key that each gets, but for those that a system or an editor left behind.

    Raises DataError if one cannot be copied.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; name the one that holds the images")

    def unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); correct its permissions") from error

    top, files = folder.resolve(), dict[str, Path]()
    for parent, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not left_behind(name)]
        for name in folders:
            if (link := Path(parent, name)).is_symlink():
                raise DataError(f"{link}: is a link to a folder, which is not followed; put the folder itself there")
        for name in names:
            if left_behind(name):
                continue
            path = Path(parent, name)
            _check(top, path.relative_to(folder).as_posix())
            files[path.relative_to(folder).as_posix()] = path
    if not files:
        raise DataError(f"{folder}: holds no file; name the folder that holds the images")
    return dict(sorted(files.items()))


def by_content(name: str) -> bool:
    """Returns whether a file is compared by its content, because different files of its kind may have the same size."""
    labels = any(is_label_file(name, kind.config.label_files) for kind in SOURCES.values())
    return labels or name.endswith(WEIGHTS)


def _check(folder: Path, key: str) -> None:
    if (fault := name_fault(key)) is not None:
        raise DataError(f"{folder}: {shown(key)} {fault}, which not all tools can read in a key; rename it")
    if not key.isprintable():
        raise DataError(f"{folder}: {shown(key)} has a character that not all tools can read in a key; rename it")
    if len(key.encode()) > LONGEST_KEY:
        raise DataError(f"{folder}: {shown(key)} is longer than a key may be; shorten the names")
    path = path_below(folder, key, str(folder), DataError)
    if not path.is_file():
        raise DataError(f"{folder}: {shown(key)} is not a regular file, or a broken link; remove it")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path}: cannot be read; correct its permissions")


def _same(store: S3Store, listed: Listed, path: Path) -> bool:
    own = file_digest(path)
    try:
        return store.digest(listed.key) == own
    except NotFound:
        return False


def _send(store: S3Store, files: Mapping[str, Path]) -> Generator[str, None, None]:
    """Uploads the files, and yields the name of each when it is uploaded."""
    from shared.artifacts.s3 import BIGGEST_PUT

    big = {name for name, path in files.items() if path.stat().st_size > BIGGEST_PUT}
    yield from _in_parallel(store.put_file, {name: files[name] for name in files if name not in big}, PARALLEL)
    yield from _in_parallel(store.put_file, {name: files[name] for name in sorted(big)}, PARALLEL_BIG)


def _in_parallel(put: Callable[[str, Path], None], files: Mapping[str, Path], count: int) -> Iterator[str]:
    def put_one(name: str) -> None:
        with disk_errors(files[name]):
            put(name, files[name])

    with closing(in_threads(put_one, files, count)) as done:
        for name, _ in done:
            yield name


def _setting(files: Mapping[str, Path]) -> str:
    if INDEX in files or any(name.startswith(DENOISERS) for name in files):
        return "finetune.base"
    if all(name.endswith((WEIGHTS, ".json", ".md")) for name in files) and any(n.endswith(WEIGHTS) for n in files):
        return "classifier.pretrained"
    return "dataset.root"
