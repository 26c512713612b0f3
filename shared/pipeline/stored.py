"""Opens the store that an argument of a command names: that of a work directory, a bucket, or a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from shared.artifacts.artifacts import BLOBS
from shared.artifacts.open import is_s3, open_store
from shared.artifacts.remote import expanded
from shared.artifacts.store import Store
from shared.errors import ConfigError
from shared.names import shown
from shared.pipeline.local_session import STUDY_FILE, last_study, latest_workdir
from shared.services.services import joined_services
from shared.settings import Settings


class OpenedStore(NamedTuple):
    """Holds a store, and the study whose work directory was named."""

    store: Store
    settings: Settings
    study: str | None
    """Holds None if the store itself was named, which may have several studies."""


@contextmanager
def opened_store(location: str | None, workdir: Path | None) -> Iterator[OpenedStore]:
    """Opens the store of `s3://bucket/prefix`, of a folder store, of a work directory, or of the one used last if neither is named.

    The services of a work directory run until the block ends, unless a command that uses it runs them. Raises ConfigError if `location` is none
    of these, or names a place beside `workdir`.
    """
    if location is not None and workdir is not None:
        raise ConfigError(f"--workdir: excludes {shown(location)}, which names another place; name one of them")
    settings = Settings.from_environment()
    if location is not None and (store := _named_store(location)) is not None:
        named = replace(settings, store=store)
        yield OpenedStore(open_store(named), named, None)
        return
    workdir = latest_workdir(workdir if location is None else expanded(location))
    study, _ = last_study(workdir)
    with joined_services(workdir, settings, database=False) as environment:
        named = Settings.from_environment({**os.environ, **environment})
        yield OpenedStore(open_store(named), named, study.name)


def _named_store(location: str) -> str | None:
    """Returns the bucket or folder of a store, or None for a work directory; raises ConfigError if it is neither."""
    if is_s3(location):
        return location
    folder = expanded(location)
    if (folder / STUDY_FILE).is_file():
        return None
    if not (folder / BLOBS).is_dir():
        raise ConfigError(
            f"{shown(location)}: is no work directory of `tailfill run` and no store; name one, or s3://bucket/prefix"
        )
    return str(folder)
