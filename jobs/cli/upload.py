"""`tailfill upload`: copies a folder of images or weights into a bucket, where the stages on a cluster read it.

Killed at any moment, the same command goes on: an object appears whole or not at all, and what is there already is left alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.artifacts.disk import disk_errors
from shared.artifacts.open import is_s3, split_s3
from shared.artifacts.store import NotFound
from shared.data.sources.digest import is_label_file
from shared.digests import file_digest
from shared.errors import ConfigError, DataError
from shared.log import Log
from shared.names import LONGEST_NAME, name_fault, path_below, shown
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.artifacts.s3 import Listed, S3Store

log = Log("upload")

PARALLEL = 16  # small files at once, bound by round trips
PARALLEL_BIG = 3  # each of them goes up in several parts at once
WEIGHTS = ".safetensors"  # other weights of the same shapes have the same size
LONGEST_KEY = LONGEST_NAME - 200  # bytes; the prefix is part of the key


@dataclass(frozen=True)
class Uploaded:
    """What lies in the bucket in the end."""

    root: str
    """`s3://bucket/prefix`."""
    files: int
    bytes: int
    sent: int
    """Of the files; the others were there."""
    others: tuple[str, ...]
    """Objects under the prefix that the folder has not; they are left, and are data as much as the rest."""
    setting: str
    """The value of a study that names such a folder."""


def upload(folder: Path, target: str, settings: Settings, as_json: bool) -> str:
    """Copies what is missing or differs, and returns what to say.

    Raises ConfigError for a target that is no bucket, DataError for a folder that cannot be copied as it is (nothing is sent then),
    and what the bucket raises.
    """
    from shared.artifacts.s3 import S3Store  # boto3 takes half a second to import

    if not is_s3(target):
        raise ConfigError(f"{target}: must be like s3://bucket/prefix")
    files = list_files(folder)
    store = S3Store(*split_s3(target), settings)
    there = {listed.key: listed for listed in store.files()}
    work = [name for name in files if name not in there or there[name].size != files[name].stat().st_size]
    known = sorted(files.keys() - set(work))
    work += [name for name in known if by_content(name) and not _same(store, there[name], files[name])]
    with closing(_send(store, {name: files[name] for name in sorted(work)})) as sent:
        for _ in log.progress(sent, f"upload to {store.url}", len(files), "files", len(files) - len(work)):
            pass
    done = Uploaded(
        root=store.url,
        files=len(files),
        bytes=sum(path.stat().st_size for path in files.values()),
        sent=len(work),
        others=tuple(sorted(there.keys() - files.keys())),
        setting=_setting(files),
    )
    return json.dumps(done.__dict__) if as_json else describe(done, folder)


def describe(done: Uploaded, folder: Path) -> str:
    """For people."""
    lines = [
        f"{done.files} files ({done.bytes / 2**20:,.1f} MiB) are in {done.root}: {done.sent} uploaded, {done.files - done.sent} were there"
    ]
    if done.others:
        lines.append(
            f"{len(done.others)} objects there are not in {folder} (first {done.others[0]}); they were left, and a study reads them too"
        )
    file = f"/{{file}}{WEIGHTS}" if done.setting == "classifier.pretrained" else ""
    return "\n".join([*lines, f"in the study: {done.setting}: {done.root}{file}"])


def list_files(folder: Path) -> dict[str, Path]:
    """All files below it by the key that they get; raises DataError where one cannot be copied as it is."""
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; name the one that holds the images")

    def unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); mend its permissions") from error

    top, found = folder.resolve(), dict[str, Path]()
    for parent, folders, names in os.walk(folder, onerror=unreadable):
        for name in folders:
            if (link := Path(parent, name)).is_symlink():
                raise DataError(f"{link}: is a link to a folder, which is not followed; put the folder itself there")
        for name in names:
            path = Path(parent, name)
            _check(top, path.relative_to(folder).as_posix())
            found[path.relative_to(folder).as_posix()] = path
    if not found:
        raise DataError(f"{folder}: holds no file; name the folder that holds the images")
    return dict(sorted(found.items()))


def by_content(name: str) -> bool:
    """Whether an equal size says too little about a file."""
    return is_label_file(name) or name.endswith(WEIGHTS)


def _check(folder: Path, key: str) -> None:
    if (fault := name_fault(key)) is not None:
        raise DataError(f"{folder}: {shown(key)} {fault}, which not all tools can read in a key; rename it")
    if not key.isprintable():
        raise DataError(f"{folder}: {shown(key)} has a character that not all tools can read in a key; rename it")
    if len(key.encode()) > LONGEST_KEY:
        raise DataError(f"{folder}: {shown(key)} is longer than a key may be; shorten the names")
    path = path_below(folder, key, str(folder), DataError)
    if not path.is_file():
        raise DataError(f"{folder}: {shown(key)} is no regular file, or a link to nothing; remove it")
    if not os.access(path, os.R_OK):
        raise DataError(f"{path}: cannot be read; mend its permissions")


def _same(store: S3Store, there: Listed, path: Path) -> bool:
    own = file_digest(path)
    try:
        return store.digest(there.key) == own
    except NotFound:
        return False


def _send(store: S3Store, files: Mapping[str, Path]) -> Generator[str, None, None]:
    """Uploads, and yields each name when it is there."""
    from shared.artifacts.s3 import BIGGEST_PUT

    big = {name for name, path in files.items() if path.stat().st_size > BIGGEST_PUT}
    yield from _in_parallel(store.put_file, {name: files[name] for name in files if name not in big}, PARALLEL)
    yield from _in_parallel(store.put_file, {name: files[name] for name in sorted(big)}, PARALLEL_BIG)


def _in_parallel(put: Callable[[str, Path], None], files: Mapping[str, Path], count: int) -> Iterator[str]:
    pool = ThreadPoolExecutor(count)
    try:
        futures = {pool.submit(_put, put, name, path): name for name, path in files.items()}
        for future in as_completed(futures):
            future.result()
            yield futures[future]
    finally:
        pool.shutdown(cancel_futures=True)


def _put(put: Callable[[str, Path], None], name: str, path: Path) -> None:
    with disk_errors(path):
        put(name, path)


def _setting(files: Mapping[str, Path]) -> str:
    if any(name.startswith("unet/") for name in files):
        return "finetune.base"
    if all(name.endswith((WEIGHTS, ".json", ".md")) for name in files) and any(n.endswith(WEIGHTS) for n in files):
        return "classifier.pretrained"
    return "dataset.root"
