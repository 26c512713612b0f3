"""Looks at files of weights, in a folder or in a bucket, by their names, sizes and first bytes. Nothing is downloaded whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shared.artifacts.open import is_s3, open_bucket, split_s3
from shared.artifacts.remote import expanded
from shared.artifacts.store import check_size
from shared.config.stages import PRETRAINED
from shared.errors import DataError
from shared.settings import Settings
from shared.weights.headers import Shape, is_pickle, shapes_from, start_of, starts_pickle, tensor_shapes
from shared.weights.in_place import PART, PICKLES, in_place, remedy_in_folder

TIMM_FILE = "model.safetensors"
"""Names the file of weights in a repository of timm's."""


@dataclass(frozen=True)
class WeightFiles:
    """Lists the files below a folder or a prefix."""

    sizes: Mapping[str, int]
    """Maps their paths inside it to their sizes in bytes."""
    start: Callable[[str, int], bytes]
    """Returns the first bytes of a file, which is not empty, by its path and their number."""

    def shapes(self, name: str, what: str) -> dict[str, Shape]:
        """Returns the shapes of the tensors in a safetensors file; raises DataError, which begins with `what`, as `shapes_from` does."""
        return shapes_from(partial(self.start, name), self.sizes[name], what)

    def text(self, name: str, what: str) -> bytes:
        """Returns the content of a small file; raises ArtifactError if it is too large for one."""
        check_size(self.sizes[name], what)
        return self.start(name, self.sizes[name]) if self.sizes[name] else b""


def file_shapes(location: str, setting: str = PRETRAINED) -> dict[str, Shape] | None:
    """Returns the shapes of the tensors in a file of weights, a local path or `s3://bucket/key`; None for a local pickle, which is not opened.

    `setting` names the setting of the study that names it, for messages.

    Raises DataError, with a remedy, if there is no such file, if it is a folder, or if it is no safetensors file.
    """
    what = f"{setting}: {location}"
    if not is_s3(location):
        path = expanded(location)
        if path.is_dir():
            raise DataError(f"{what} is a folder; {_file_in(location, [*files_in_folder(path).sizes])}")
        if not path.is_file():
            package = "package:<module>/<file> or " if setting == PRETRAINED else ""
            raise DataError(f"{what}: there is no such file; name an existing one, {package}s3://bucket/key")
        return None if is_pickle(path) else tensor_shapes(path, what)
    bucket, key = split_s3(location)
    if not key:
        raise DataError(f"{what} names no object; write s3://bucket/key")
    store = open_bucket(bucket, "", Settings.from_environment())
    sizes = {file.key: file.size for file in store.listed(key)}
    if key not in sizes:
        below = [name.removeprefix(f"{key}/") for name in sizes if name.startswith(f"{key}/")]
        if below:
            raise DataError(f"{what} is a prefix; {_file_in(location, below)}")
        raise DataError(f"{what}: there is no such object; check bucket and key")
    if sizes[key] and starts_pickle(store.start(key, 4)):
        raise pickle_in_bucket(location, setting)
    return shapes_from(partial(store.start, key), sizes[key], what)


def pickle_in_bucket(location: str, setting: str = PRETRAINED) -> DataError:
    """Returns the error for weights in a bucket that are a pickle: reading one could run code of whoever can write there."""
    return DataError(f"{setting}: {location} is a pickle; from a bucket only safetensors are read, convert it")


def _file_in(location: str, there: Sequence[str]) -> str:
    """Returns which file of a folder can be named in its place, or what helps if none can, as a sentence."""
    whole = [name for name in there if name.endswith(".safetensors") and not PART.search(name)]
    pickles = [] if is_s3(location) else [name for name in there if name.endswith(PICKLES) and not PART.search(name)]
    if found := sorted(whole) or sorted(pickles):
        return f"name a file in it, such as {location.rstrip('/')}/{found[0]}"
    instead = in_place(TIMM_FILE, there).removeprefix("; ")
    return f"{instead}; {remedy_in_folder(TIMM_FILE, there)}" if instead else "name a file of weights"


def files_in_folder(folder: Path) -> WeightFiles:
    """Returns the files of a local folder, at any depth."""

    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return WeightFiles(
        {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths},
        lambda name, length: start_of(folder / name, length),
    )


def files_in_bucket(location: str, settings: Settings) -> WeightFiles:
    """Returns the objects below `s3://bucket/prefix`; raises the errors of `shared.artifacts.s3`."""
    store = open_bucket(*split_s3(location), settings)
    return WeightFiles({file.key: file.size for file in store.files()}, store.start)
