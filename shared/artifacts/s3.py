"""The store on an S3 server: Amazon's, SeaweedFS, MinIO, or any other that has conditional writes."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ResponseStreamingError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from pydantic import SecretStr

from shared.artifacts.disk import disk_errors
from shared.artifacts.store import NotFound
from shared.errors import ArtifactError, ConfigError, UnavailableError
from shared.log import Log
from shared.names import checked_name
from shared.settings import Settings

T = TypeVar("T")
log = Log("s3")

ATTEMPTS = 5  # botocore waits up to 1, 2, 4, 8 s (with jitter) between them
CONNECT_SECONDS = 5
READ_SECONDS = 60
CHUNK = 1 << 20
BIGGEST_PUT = 16 << 20  # bytes; larger files go up in parts
TRANSFER = TransferConfig(multipart_threshold=BIGGEST_PUT, multipart_chunksize=BIGGEST_PUT, max_concurrency=4)

AWAY = (BotoConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError)
CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


class Listed(NamedTuple):
    """An object as the server lists it."""

    key: str
    etag: str
    """Changes when the object does."""
    size: int


class S3Store:
    """Implements `shared.artifacts.store.Store` under `prefix` of a bucket, which must exist."""

    def __init__(self, bucket: str, prefix: str, settings: Settings, attempts: int = ATTEMPTS) -> None:
        self.bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint = settings.s3_endpoint or f"Amazon S3 ({settings.s3_region})"
        self._attempts = attempts
        self._bucket_seen = False
        self._conditions_seen = False
        self._client = _client(
            settings.s3_endpoint,
            settings.s3_region,
            settings.s3_access_key,
            settings.s3_secret_key,
            attempts,
            settings.s3_session_token,
        )
        self._client.meta.events.register("needs-retry.s3", self._log_retry)

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self._prefix}".rstrip("/")

    def put(self, key: str, data: bytes) -> None:
        """Writes an object, whole or not at all, over any older one."""
        with self._errors(key):
            self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)

    def put_file(self, key: str, path: Path) -> None:
        """Like put, from a file of any size; a large one goes up in parts, and appears when the last has arrived."""
        with self._errors(key), path.open("rb") as file:
            self._client.upload_fileobj(file, self.bucket, self._key(key), Config=TRANSFER)

    def create(self, key: str, data: bytes) -> bool:
        """Writes an object only where there is none, by `If-None-Match: *`.

        The winner of a race whose answer was lost on the way is told False too: read what stands. The first success of each store
        is tried a second time, which the server must refuse: one that ignores the condition would let two commits stand.
        """
        if not self._create(key, data):
            return False
        if not self._conditions_seen:
            if self._create(key, data):
                raise ArtifactError(
                    f"{self._endpoint}: ignores If-None-Match on writes, so two commits could overwrite each other; "
                    "use a server that has conditional writes"
                )
            self._conditions_seen = True
        return True

    def get(self, key: str) -> bytes:
        """The object's bytes; raises NotFound."""

        def read() -> bytes:
            data: bytes = self._client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read()
            return data

        return self._whole_body(key, read)

    def get_file(self, key: str, path: Path) -> None:
        """Writes the object's bytes to a file; after a cut it goes on from the byte that was reached. Raises NotFound."""
        tag: str | None = None
        done = 0

        def read() -> None:
            nonlocal tag, done
            rest = {} if tag is None else {"Range": f"bytes={done}-", "IfMatch": tag}
            answer = self._client.get_object(Bucket=self.bucket, Key=self._key(key), **rest)
            tag = answer["ETag"] if answer["ContentLength"] else None  # an empty range cannot be asked for
            with path.open("r+b" if done else "wb") as file:
                file.seek(done)
                for chunk in answer["Body"].iter_chunks(CHUNK):
                    with disk_errors(path):
                        file.write(chunk)
                        file.flush()
                    done += len(chunk)

        self._whole_body(key, read)

    def digest(self, key: str) -> str:
        """SHA-256 of the object's bytes, read through and not kept; raises NotFound."""

        def read() -> str:
            total = hashlib.sha256()
            for chunk in self._client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].iter_chunks(CHUNK):
                total.update(chunk)
            return total.hexdigest()

        return self._whole_body(key, read)

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        try:
            with self._errors(key):
                self._client.head_object(Bucket=self.bucket, Key=self._key(key))
        except NotFound:
            self._check_bucket()  # the answer to HEAD has no body that could tell a missing bucket from a missing key
            return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that begin with `prefix`, in order; sorted here, since SeaweedFS answers folder by folder."""
        yield from (listed.key for listed in self.listed(prefix))

    def listed(self, prefix: str = "") -> Sequence[Listed]:
        """Objects whose keys begin with `prefix`, in the order of their keys."""
        if folder := prefix.rpartition("/")[0]:
            checked_name(folder, self.url)
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._prefix + prefix)
        with self._errors(prefix):
            found = [
                Listed(item["Key"].removeprefix(self._prefix), str(item["ETag"]), int(item["Size"]))
                for page in pages
                for item in page.get("Contents", ())
            ]
        return sorted(found)

    def files(self) -> Sequence[Listed]:
        """The objects as the files of a folder: without the empty ones that some tools leave for a folder, `a/` or `a` beside `a/b`."""
        found = self.listed()
        folders = {parent for item in found for parent in _parents(item.key)}
        return [item for item in found if not item.key.endswith("/") and not (item.size == 0 and item.key in folders)]

    def delete(self, key: str) -> None:
        """Removes an object; nothing happens where there is none."""
        with self._errors(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(key))

    def _key(self, key: str) -> str:
        """The whole key in the bucket; some servers keep objects as files, so it is held to what a path may be."""
        return self._prefix + checked_name(key, self.url)

    def _create(self, key: str, data: bytes) -> bool:
        for attempt in range(self._attempts):
            try:
                with self._errors(key):
                    self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, IfNoneMatch="*")
                    return True
            except _Refused as refusal:
                if refusal.status == 412:
                    return False
                if refusal.status != 409:  # 409: another's write of this key is under way
                    raise
                log.warning("another write is under way", key=key, attempt=attempt + 1)
                time.sleep(random.uniform(0, 2.0**attempt / 4))
        raise UnavailableError(f"{self.url}/{key}: other writes were under way in {self._attempts} attempts; run again")

    def _whole_body(self, key: str, read: Callable[[], T]) -> T:
        """Reads again where a body was cut short; botocore retries requests, not bodies."""
        for attempt in range(1, self._attempts + 1):
            try:
                with self._errors(key):
                    return read()
            except _CutShort as cut:
                if attempt == self._attempts:
                    raise
                log.warning("retry of a body that was cut short", key=key, attempt=attempt, error=cut.reason)
                time.sleep(random.uniform(0, 2.0**attempt / 4))
        raise AssertionError("at least one attempt is made")

    def _check_bucket(self) -> None:
        if not self._bucket_seen:
            try:
                with self._errors(""):
                    self._client.head_bucket(Bucket=self.bucket)
            except NotFound:
                raise self._no_bucket() from None
            self._bucket_seen = True

    def _no_bucket(self) -> ArtifactError:
        return ArtifactError(
            f"{self._endpoint}: has no bucket {self.bucket!r}; create it, or name another in TAILFILL_STORE or the study"
        )

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        where = f"s3://{self.bucket}/{self._prefix}{key} at {self._endpoint}"
        try:
            yield
        except ClientError as error:
            raise self._refusal(error, key, where) from error
        except (IncompleteReadError, ResponseStreamingError) as error:
            raise _CutShort(f"{where}: its body was cut short; run the same command again", str(error)) from error
        except AWAY as error:
            raise UnavailableError(
                f"{where}: the server does not answer after {self._attempts} attempts ({error}); "
                "start it or mend AWS_ENDPOINT_URL_S3, then run the same command again"
            ) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise ArtifactError(f"{where}: there are no credentials for it; set {CREDENTIALS}") from error
        except (ParamValidationError, BotoCoreError) as error:
            raise ArtifactError(f"{where}: the request cannot be made ({' '.join(str(error).split())})") from error

    def _refusal(self, error: ClientError, key: str, where: str) -> Exception:
        code = error.response["Error"].get("Code", "")
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        text = " ".join(error.response["Error"].get("Message", "").split())
        if code == "NoSuchBucket":
            return self._no_bucket()
        if status == 404:
            return NotFound(key)
        if status in (401, 403):
            return ArtifactError(
                f"{where}: access refused ({code}); check {CREDENTIALS} and the rights of that key on the bucket"
            )
        if status >= 500 and code != "NotImplemented":
            return UnavailableError(
                f"{where}: the server failed with {status} {code} in {self._attempts} attempts; run the same command again"
            )
        if status in (408, 429):
            return UnavailableError(f"{where}: the server is too busy ({code}); run the same command again")
        if code == "NotImplemented":
            text = f"{text}; it may lack conditional writes (If-None-Match), which a commit rests on"
        return _Refused(f"{where}: refused with {status} {code}: {text}", status)

    def _log_retry(
        self, attempts: int, operation: Any, response: Any = None, caught_exception: Any = None, **_: Any
    ) -> None:
        """Called by botocore after each request; its own handler decides, by the same signs, whether to try again."""
        status = response[0].status_code if response is not None else None
        if attempts < self._attempts and (caught_exception is not None or (status or 0) >= 500 or status == 429):
            reason = caught_exception if caught_exception is not None else f"status {status}"
            log.warning("retry", operation=operation.name, bucket=self.bucket, attempt=attempts, error=reason)


def ensure_bucket(bucket: str, settings: Settings) -> None:
    """`make_bucket` on the server that the settings name; raises ConfigError where they name none."""
    endpoint, access, secret = settings.s3_endpoint, settings.s3_access_key, settings.s3_secret_key
    if endpoint is None or access is None or secret is None:
        raise ConfigError(
            f"bucket {bucket}: is made on a server of one's own only; set AWS_ENDPOINT_URL_S3 and {CREDENTIALS}"
        )
    make_bucket(bucket, endpoint, settings.s3_region, access, secret)


def make_bucket(bucket: str, endpoint: str, region: str, access_key: SecretStr, secret_key: SecretStr) -> None:
    """Makes a bucket of our own where there is none, in one attempt; raises UnavailableError where the server is not ready yet."""
    client = _client(endpoint, region, access_key, secret_key, attempts=1)
    try:
        client.create_bucket(Bucket=bucket)
    except ClientError as error:
        code = error.response["Error"].get("Code")
        if code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise UnavailableError(f"bucket {bucket!r} at {endpoint}: cannot be made ({code})") from error
    except AWAY as error:
        raise UnavailableError(f"bucket {bucket!r} at {endpoint}: cannot be made ({error})") from error


def _parents(key: str) -> Iterator[str]:
    while "/" in key:
        key = key.rpartition("/")[0]
        yield key


class _Refused(ArtifactError):
    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _CutShort(UnavailableError):
    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def _client(
    endpoint: str | None,
    region: str,
    access_key: SecretStr | None,
    secret_key: SecretStr | None,
    attempts: int,
    session_token: SecretStr | None = None,
) -> Any:
    keys = {}
    if access_key is not None and secret_key is not None:
        keys = {
            "aws_access_key_id": access_key.get_secret_value(),
            "aws_secret_access_key": secret_key.get_secret_value(),
        }
        if session_token is not None:  # boto3 takes none from the environment for keys that are given to it
            keys["aws_session_token"] = session_token.get_secret_value()
    try:
        return boto3.session.Session().client(  # a session of its own: the default one is not safe to make from threads
            "s3",
            endpoint_url=endpoint,
            region_name=region,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                retries={"mode": "standard", "total_max_attempts": attempts},
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                max_pool_connections=16,
                # digests are ours; servers other than Amazon's may lack the checksum trailers that boto3 sends unasked
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
            **keys,
        )
    except ValueError as error:
        raise ConfigError(f"AWS_ENDPOINT_URL_S3: must be like http://host:port, got {endpoint!r}") from error
