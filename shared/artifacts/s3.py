"""Implements the store on an S3 server: Amazon's, SeaweedFS, MinIO, or any other that has conditional writes."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
    ResponseStreamingError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from pydantic import SecretStr

from shared.artifacts.disk import disk_errors
from shared.artifacts.s3_client import CREDENTIALS, UNAVAILABLE, new_client, said
from shared.artifacts.store import NotFound, check_size, too_long
from shared.digests import stream_digest
from shared.errors import ArtifactError, ConfigError, UnavailableError
from shared.log import Log
from shared.names import checked_name, shown
from shared.retries import FULL_JITTER, Backoff, retrying
from shared.settings import Settings

T = TypeVar("T")
log = Log("s3")

ATTEMPTS = 5  # botocore waits up to 1, 2, 4, 8 s (with jitter) between them
WRITE_BACKOFF = Backoff(0.25, jitter=FULL_JITTER)
READ_BACKOFF = Backoff(0.5, jitter=FULL_JITTER)
CHUNK = 1 << 20
MOST_LISTED = 10_000_000  # objects, of which each takes some 300 bytes of memory
BIGGEST_PUT = 16 << 20  # bytes; larger files go up in parts
TRANSFER = TransferConfig(multipart_threshold=BIGGEST_PUT, multipart_chunksize=BIGGEST_PUT, max_concurrency=4)

WRONG_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "301", "400")
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired")
UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "No such file")
"""Lists words of an error of TLS that no retry mends: an unknown signer, or a file of signers that is not there."""
PORTAL = (
    "a proxy or a login page of the network may answer in its place: log in, or fix AWS_ENDPOINT_URL_S3 or HTTP_PROXY"
)
PROBE = ".tailfill-probe"


class Listed(NamedTuple):
    """Describes an object as the server lists it."""

    key: str
    etag: str
    """Holds the entity tag, which changes with the object's content."""
    size: int


class S3Store:
    """Implements `shared.artifacts.store.Store` under `prefix` of a bucket, which must exist."""

    def __init__(self, bucket: str, prefix: str, settings: Settings, attempts: int = ATTEMPTS) -> None:
        self.bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._attempts = attempts
        self._bucket_seen = False
        self._conditions_seen = False
        self._writes_seen = False
        self._probing = threading.Lock()
        self._client = new_client(
            settings.s3_endpoint,
            settings.s3_region,
            settings.s3_access_key,
            settings.s3_secret_key,
            attempts,
            settings.s3_session_token,
        )
        self._endpoint = settings.s3_endpoint or str(self._client.meta.endpoint_url)
        self._client.meta.events.register("needs-retry.s3", self._log_retry)

    @property
    def url(self) -> str:
        """Returns the location: `s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self._prefix}".rstrip("/")

    def put(self, key: str, data: bytes) -> None:
        """Writes an object, whole or not at all, and replaces an existing one."""
        name = self._key(key)
        self._check_writes()
        with self._errors(key):
            self._client.put_object(Bucket=self.bucket, Key=name, Body=data)

    def put_file(self, key: str, path: Path) -> None:
        """Writes an object from a file of any size; a large one is uploaded in parts, and appears when the last has arrived."""
        name = self._key(key)
        self._check_writes()
        with self._errors(key), path.open("rb") as file:
            self._client.upload_fileobj(file, self.bucket, name, Config=TRANSFER)

    def create(self, key: str, data: bytes) -> bool:
        """Writes an object if the key has none, by `If-None-Match: *`; returns whether it did.

        If the server's answer to a successful write is lost, it returns False too: read the object to learn which one was written. The first
        success of each store is repeated, and the server must refuse that: one that ignores the condition would accept two commits.
        """
        self._key(key)  # refuses a name that is no key, before anything is sent
        self._check_writes()
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
        """Returns the object's bytes; raises NotFound, and ArtifactError if there are more than LARGEST_IN_MEMORY."""

        def read() -> bytes:
            answer = self._client.get_object(Bucket=self.bucket, Key=self._key(key))
            check_size(self._length(answer, key), f"{self.url}/{key}")
            return b"".join(self._chunks(answer, key))

        return self._read_whole(key, read)

    def get_file(self, key: str, path: Path, size: int | None = None) -> None:
        """Writes the object's bytes to a file; after a lost connection it continues from the byte it had reached.

        Raises NotFound, and ArtifactError before it writes more than `size` bytes, or if that is None than the server announces.
        """
        tag: str | None = None
        done = 0

        def read() -> None:
            nonlocal tag, done
            rest = {} if tag is None else {"Range": f"bytes={done}-", "IfMatch": tag}
            answer = self._client.get_object(Bucket=self.bucket, Key=self._key(key), **rest)
            length = self._length(answer, key)
            if size is not None and done + length > size:
                answer["Body"].close()
                raise too_long(f"{self.url}/{key}", size)
            tag = answer["ETag"] if length else None  # an empty range cannot be asked for
            with path.open("r+b" if done else "wb") as file:
                file.seek(done)
                for chunk in self._chunks(answer, key):
                    with disk_errors(path):
                        file.write(chunk)
                        file.flush()
                    done += len(chunk)

        self._read_whole(key, read)

    def digest(self, key: str) -> str:
        """Returns the SHA-256 of the object's bytes, which are read and not kept; raises NotFound."""

        def read() -> str:
            return stream_digest(self._chunks(self._client.get_object(Bucket=self.bucket, Key=self._key(key)), key))

        return self._read_whole(key, read)

    def start(self, key: str, length: int) -> bytes:
        """Returns the first `length` bytes of an object that is not empty, or all if it has fewer; raises NotFound."""

        def read() -> bytes:
            asked = {"Bucket": self.bucket, "Key": self._key(key), "Range": f"bytes=0-{length - 1}"}
            with closing(self._client.get_object(**asked)["Body"]) as body:  # a server may ignore the range
                data = b""
                while len(data) < length and (more := body.read(length - len(data))):
                    data += more
                return data

        return self._read_whole(key, read)

    def exists(self, key: str) -> bool:
        """Returns whether the object exists."""
        try:
            with self._errors(key):
                self._client.head_object(Bucket=self.bucket, Key=self._key(key))
        except NotFound:
            self._check_bucket()  # the answer to HEAD has no body that could tell a missing bucket from a missing key
            return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        """Yields the keys that begin with `prefix`, in order; they are sorted here, as SeaweedFS lists folder by folder."""
        yield from (listed.key for listed in self.listed(prefix))

    def listed(self, prefix: str = "") -> Sequence[Listed]:
        """Returns the objects whose keys begin with `prefix`, in the order of their keys, without a probe that a killed process left."""
        if folder := prefix.rpartition("/")[0]:
            checked_name(folder, self.url)
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._prefix + prefix)
        found = list[Listed]()
        with self._errors(prefix):
            for count, page in enumerate(pages, 1):
                found += [
                    Listed(item["Key"].removeprefix(self._prefix), str(item["ETag"]), int(item["Size"]))
                    for item in page.get("Contents", ())
                ]
                if max(len(found), count) > MOST_LISTED:  # a server may also send pages without objects for ever
                    raise ArtifactError(
                        f"{self.url}/{prefix}: more than {MOST_LISTED:,} objects are listed; name a prefix that holds fewer"
                    )
        return sorted(item for item in found if not item.key.startswith(PROBE))

    def files(self) -> Sequence[Listed]:
        """Returns the objects without the empty ones that some tools create for a folder: `a/`, or `a` beside `a/b`."""
        found = self.listed()
        folders = {parent for item in found for parent in _parents(item.key)}
        return [item for item in found if not item.key.endswith("/") and not (item.size == 0 and item.key in folders)]

    def delete(self, key: str) -> None:
        """Removes an object if it exists."""
        with self._errors(key):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(key))

    def _length(self, answer: Mapping[str, Any], key: str) -> int:
        """Returns how many bytes an answer announces."""
        length = answer.get("ContentLength")
        if length is None:
            answer["Body"].close()
            raise UnavailableError(f"{self.url}/{key}: what answers does not say how long it is, as S3 does; {PORTAL}")
        return int(length)

    def _chunks(self, answer: Mapping[str, Any], key: str) -> Iterator[bytes]:
        """Yields the bytes of an answer; raises ArtifactError before more arrive than it announces, as an answer in chunks may bring."""
        length, done = self._length(answer, key), 0
        with closing(answer["Body"]) as body:
            while chunk := body.read(CHUNK):
                done += len(chunk)
                if done > length:
                    raise too_long(f"{self.url}/{key}", length)
                yield chunk

    def _key(self, key: str) -> str:
        """Returns the full key in the bucket, after checking that it is a valid path, as some servers keep objects as files."""
        return self._prefix + checked_name(key, self.url)

    def _create(self, key: str, data: bytes) -> bool:
        """Writes an object if there is none; returns False if there is one."""

        def write() -> bool:
            try:
                with self._errors(key):
                    self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, IfNoneMatch="*")
            except _AlreadyExists:
                return False
            return True

        warn = partial(log.warning, "another write is under way", key=key)
        try:
            return retrying(_WriteConflict, WRITE_BACKOFF, warn, self._attempts)(write)
        except _WriteConflict as conflict:
            raise UnavailableError(
                f"{self.url}/{key}: other writes were under way in {self._attempts} attempts; run again"
            ) from conflict

    def _read_whole(self, key: str, read: Callable[[], T]) -> T:
        """Returns what `read` returns; calls it again if a body was cut short, as botocore retries requests, not bodies."""

        def attempt() -> T:
            with self._errors(key):
                return read()

        warn = partial(log.warning, "retry of a body that was cut short", key=key)
        return retrying(_CutShort, READ_BACKOFF, warn, self._attempts)(attempt)

    def _check_writes(self) -> None:
        """Writes an object before the first write, reads it back and removes it: a login page of a network answers 200 to everything.

        A store that only reads needs no right to write. Raises ArtifactError if what comes back differs.
        """
        with self._probing:
            if not self._writes_seen:
                self._probe()
                self._writes_seen = True

    def _probe(self) -> None:
        key, data = f"{PROBE}-{uuid.uuid4().hex}", uuid.uuid4().bytes
        with self._errors(key):
            self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)
        try:
            found = self.get(key)
        except NotFound:
            found = b""
        if found != data:
            raise ArtifactError(
                f"{self._endpoint}: accepts a write to {self.url} but gives back something else; {PORTAL}"
            )
        try:
            self.delete(key)
        except ArtifactError:  # a key may have no right to delete
            log.info("an object of a probe stays, as it may not be deleted", key=key)

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
            raise _CutShort(f"{where}: its body was cut short ({error}); run the same command again") from error
        except UNAVAILABLE as error:
            if isinstance(
                error.kwargs.get("error"), RecursionError
            ):  # botocore wraps it if it happens while a request is sent
                raise UnavailableError(f"{where}: what answers does not speak S3; {PORTAL}") from error
            if isinstance(error, SSLError) and any(words in str(error) for words in UNTRUSTED):
                raise ConfigError(
                    f"{where}: its certificate cannot be checked ({said(error)}); name a file with that of who signed it in AWS_CA_BUNDLE"
                ) from error
            fix = "AWS_ENDPOINT_URL_S3"
            if isinstance(error, ProxyConnectionError):
                fix = "the proxy that HTTP_PROXY or HTTPS_PROXY names, or except this server in NO_PROXY"
            raise UnavailableError(
                f"{where}: the server does not answer after {self._attempts} attempts ({error}); "
                f"start it or fix {fix}, then run the same command again"
            ) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise ArtifactError(f"{where}: there are no credentials for it; set {CREDENTIALS}") from error
        except (ResponseParserError, RecursionError) as error:  # botocore follows redirects that never end by recursion
            raise UnavailableError(f"{where}: what answers does not speak S3; {PORTAL}") from error
        except BotoCoreError as error:
            raise ArtifactError(
                f"{where}: the request cannot be made ({said(error)}); fix the AWS_* variables or ~/.aws/config"
            ) from error

    def _refusal(self, error: ClientError, key: str, where: str) -> Exception:
        code = error.response["Error"].get("Code", "")
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        text = " ".join(error.response["Error"].get("Message", "").split())
        if code == "NoSuchBucket":
            return self._no_bucket()
        if status == 404:
            return NotFound(key)
        if code == "RequestTimeTooSkewed":
            return ArtifactError(
                f"{where}: this machine's clock differs too much from the server's; set it (for example by NTP)"
            )
        headers = error.response["ResponseMetadata"].get("HTTPHeaders", {})
        region = error.response["Error"].get("Region") or headers.get("x-amz-bucket-region")
        if region and code in WRONG_REGION:
            return ArtifactError(f"{where}: the bucket is in another region; set AWS_REGION={shown(region)[1:-1]}")
        if code in EXPIRED:
            return ArtifactError(
                f"{where}: the session token is refused ({code}); get new temporary keys, then run again"
            )
        if status in (401, 403):
            return ArtifactError(
                f"{where}: access refused ({code}); check {CREDENTIALS} and the rights of that key on the bucket"
            )
        if "html" in headers.get("content-type", ""):
            return UnavailableError(f"{where}: what answers ({status}, HTML) does not speak S3; {PORTAL}")
        if status >= 500 and code != "NotImplemented":
            return UnavailableError(
                f"{where}: the server failed with {status} {code} in {self._attempts} attempts; if its disk is full, "
                "free some space there, then run the same command again"
            )
        if status in (408, 429):
            return UnavailableError(f"{where}: the server is too busy ({code}); run the same command again")
        if code == "NotImplemented":
            text = f"{text}; it may lack conditional writes (If-None-Match), which a commit needs"
        refused = f"{where}: refused with {status} {code}: {text}"
        match status:
            case 409:
                return _WriteConflict(refused)
            case 412:
                return _AlreadyExists(refused)
            case _:
                return ArtifactError(refused)

    def _log_retry(
        self, attempts: int, operation: Any, response: Any = None, caught_exception: Any = None, **_: Any
    ) -> None:
        """Logs a retry. botocore calls it after each request; its own handler retries on the same conditions."""
        status = response[0].status_code if response is not None else None
        if attempts < self._attempts and (caught_exception is not None or (status or 0) >= 500 or status == 429):
            reason = caught_exception if caught_exception is not None else f"status {status}"
            log.warning("retry", operation=operation.name, bucket=self.bucket, attempt=attempts, error=reason)


def ensure_bucket(bucket: str, settings: Settings) -> None:
    """Creates a bucket on the server that the settings name; raises ConfigError if they name none."""
    endpoint, access, secret = settings.s3_endpoint, settings.s3_access_key, settings.s3_secret_key
    if endpoint is None or access is None or secret is None:
        raise ConfigError(
            f"bucket {bucket}: is created on a server of one's own only; set AWS_ENDPOINT_URL_S3 and {CREDENTIALS}"
        )
    make_bucket(bucket, endpoint, settings.s3_region, access, secret)


def make_bucket(bucket: str, endpoint: str, region: str | None, access_key: SecretStr, secret_key: SecretStr) -> None:
    """Creates a bucket if it does not exist, in one attempt; raises UnavailableError if the server is not ready."""
    client = new_client(endpoint, region, access_key, secret_key, attempts=1)
    try:
        client.create_bucket(Bucket=bucket)
    except ClientError as error:
        code = error.response["Error"].get("Code")
        if code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise UnavailableError(f"bucket {bucket!r} at {endpoint}: cannot be created ({code})") from error
    except UNAVAILABLE as error:
        raise UnavailableError(f"bucket {bucket!r} at {endpoint}: cannot be created ({error})") from error


def _parents(key: str) -> Iterator[str]:
    while "/" in key:
        key = key.rpartition("/")[0]
        yield key


class _AlreadyExists(ArtifactError):
    """Says that a conditional write found an object under its key."""


class _WriteConflict(ArtifactError):
    """Says that another write of the same key is running."""


class _CutShort(UnavailableError):
    """Says that the connection ended before the whole body had arrived."""
