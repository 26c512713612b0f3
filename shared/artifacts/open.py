"""Opens the store that the environment names, or a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shared.artifacts.store import Store
from shared.errors import ConfigError
from shared.names import checked_name
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.artifacts.s3 import S3Store

S3_SCHEME = "s3://"


def open_store(settings: Settings) -> Store:
    """Returns the store of `TAILFILL_STORE`, `s3://bucket[/prefix]` or a folder; raises ConfigError if none is named."""
    if settings.store is None:
        raise ConfigError("TAILFILL_STORE: is not set; set it to s3://bucket/prefix or to a folder")
    if is_s3(settings.store):
        return open_bucket(*split_s3(settings.store), settings)
    if "://" in settings.store and "@" in settings.store:
        raise ConfigError(
            "TAILFILL_STORE: must be s3://bucket/prefix or a folder, without keys; set them in AWS_* variables"
        )
    if "://" in settings.store:
        raise ConfigError(f'TAILFILL_STORE: must be s3://bucket/prefix or a folder, got "{settings.store}"')
    from shared.artifacts.folder import FolderStore

    return FolderStore(Path(settings.store))


def open_bucket(bucket: str, prefix: str, settings: Settings) -> S3Store:
    """Returns the objects below a prefix of a bucket, on the server that the settings name."""
    from shared.artifacts.s3 import S3Store  # boto3 takes half a second to import

    return S3Store(bucket, prefix, settings)


def is_s3(location: str) -> bool:
    """Returns whether a location is `s3://…` rather than a local path."""
    return location.startswith(S3_SCHEME)


def split_s3(location: str) -> tuple[str, str]:
    """Returns (`bucket`, `some/prefix`) of `s3://bucket/some/prefix`; raises ConfigError without a bucket or if either name is invalid."""
    bucket, _, prefix = location.removeprefix(S3_SCHEME).partition("/")
    if "@" in bucket:  # no bucket's name has one, and what is before it may be a key
        raise ConfigError(
            "s3://…@…: must be s3://bucket/prefix, without keys; set them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not bucket:
        raise ConfigError(f'"{location}": names no bucket; write s3://bucket/prefix')
    checked_name(f"{bucket}/{prefix.strip('/')}".strip("/"), "s3://bucket/prefix", ConfigError)
    return bucket, prefix.strip("/")
