"""Implements the store on an S3 server: Amazon's, SeaweedFS, MinIO, or any other that has conditional writes."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from boto3.s3.transfer import TransferConfig

from shared.artifacts.disk import disk_errors
from shared.artifacts.s3_client import new_client
from shared.artifacts.s3_errors import PORTAL, Address, AlreadyExists, CutShort, WriteConflict, no_bucket, s3_errors
from shared.artifacts.store import NotFound, Stored, Unfinished, check_size, folders_among, too_long
from shared.digests import stream_digest
from shared.errors import ArtifactError, UnavailableError
from shared.log import Log
from shared.names import checked_name, shown
from shared.parallel import in_threads
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
PART_OF_COPY = 256 << 20  # bytes that a server copies within one request, before it would take too long to answer
COPY = TransferConfig(multipart_threshold=PART_OF_COPY, multipart_chunksize=PART_OF_COPY, max_concurrency=4)
PART_OF_READ = 16 << 20  # bytes
READERS = 8  # parts of an object that are read at once

PROBE = ".tailfill-probe"


class Listed(NamedTuple):
    """Describes an object as the server lists it."""

    key: str
    etag: str
    """Holds the entity tag, which changes with the object's content."""
    size: int


class Version(NamedTuple):
    """Describes the content that an object has while it is read."""

    etag: str
    length: int


class S3Store:
    """Implements `shared.artifacts.store.Store` under `prefix` of a bucket, which must exist."""

    def __init__(self, bucket: str, prefix: str, settings: Settings, attempts: int = ATTEMPTS) -> None:
        self.bucket = bucket
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
            settings.s3_addressing,
            settings.authorities,
        )
        endpoint = settings.s3_endpoint or str(self._client.meta.endpoint_url)
        self._at = Address(bucket, f"{prefix}/" if prefix else "", endpoint, attempts)
        self._client.meta.events.register("needs-retry.s3", self._log_retry)

    @property
    def url(self) -> str:
        """Returns the location: `s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self._at.prefix}".rstrip("/")

    def put(self, key: str, data: bytes) -> None:
        """Writes an object, whole or not at all, and replaces an existing one."""
        name = self._key(key)
        self._check_writes()
        with s3_errors(self._at, key):
            self._client.put_object(Bucket=self.bucket, Key=name, Body=data)

    def put_file(self, key: str, path: Path) -> None:
        """Writes an object from a file of any size; a large one is uploaded in parts, and appears when the last has arrived."""
        name = self._key(key)
        self._check_writes()
        with s3_errors(self._at, key), path.open("rb") as file:
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
                    f"{self._at.endpoint}: ignores If-None-Match on writes, so two commits could overwrite each other; "
                    "use a server that has conditional writes"
                )
            self._conditions_seen = True
        return True

    def get(self, key: str) -> bytes:
        """Returns the object's bytes; raises NotFound, and ArtifactError if there are more than LARGEST_IN_MEMORY."""

        def read() -> bytes:
            with self._answer(key) as answer:
                check_size(self._length(answer, key), f"{self.url}/{key}")
                return b"".join(self._chunks(answer, key))

        return self._read_whole(key, read)

    def get_file(self, key: str, path: Path, size: int | None = None) -> None:
        """Writes the object's bytes to a file. A large one arrives in parts, several at once; after a lost connection each part goes on from the
        byte that it had reached.

        Raises NotFound, and ArtifactError before it writes more than `size` bytes, or if that is None than the server announces.
        """
        whole = self._get_part(key, path, 0, size=size)
        others = range(PART_OF_READ, whole.length, PART_OF_READ)
        for _ in in_threads(partial(self._get_part, key, path, whole=whole), others, READERS):
            pass

    def _get_part(
        self, key: str, path: Path, start: int, whole: Version | None = None, size: int | None = None
    ) -> Version:
        """Writes the part of an object that begins at `start` to its place in the file, and returns what the object is.

        If `whole` is None, that is learnt from the first answer, and the file is begun anew.
        """
        done, end = start, start + PART_OF_READ if whole is None else min(start + PART_OF_READ, whole.length)

        def read() -> Version:
            nonlocal whole, done, end
            with self._answer(key) if whole is None else self._answer_from(key, whole, done, end) as answer:
                if whole is None:
                    length = self._length(answer, key)
                    if size is not None and length > size:
                        raise too_long(f"{self.url}/{key}", size)
                    with disk_errors(path):
                        path.write_bytes(b"")
                    whole, end = Version(answer["ETag"], length), min(end, length)
                with path.open("r+b") as file:
                    file.seek(done)
                    for chunk in self._chunks(answer, key):
                        with disk_errors(path):
                            file.write(chunk[: end - done])
                            file.flush()
                        done = min(done + len(chunk), end)
                        if done == end:  # the first answer would bring the other parts too
                            break
                return whole

        return self._read_whole(key, read)

    def digest(self, key: str) -> str:
        """Returns the SHA-256 of the object's bytes, which are read and not kept; raises NotFound."""

        def read() -> str:
            with self._answer(key) as answer:
                return stream_digest(self._chunks(answer, key))

        return self._read_whole(key, read)

    def start(self, key: str, length: int) -> bytes:
        """Returns the first `length` bytes of an object that is not empty, or all if it has fewer; raises NotFound."""

        def read() -> bytes:
            with self._answer(key, Range=f"bytes=0-{length - 1}") as answer:  # a server may ignore the range
                data = b""
                while len(data) < length and (more := answer["Body"].read(length - len(data))):
                    data += more
                return data

        return self._read_whole(key, read)

    def exists(self, key: str) -> bool:
        """Returns whether the object exists."""
        return self._head(key, lambda _: True) is not None

    def list(self, prefix: str) -> Iterator[str]:
        """Yields the keys that begin with `prefix`, in order; they are sorted here, as SeaweedFS lists folder by folder."""
        yield from (listed.key for listed in self.listed(prefix))

    def listed(self, prefix: str = "") -> Sequence[Listed]:
        """Returns the objects whose keys begin with `prefix`, in the order of their keys."""

        found = [*islice(self.stream(prefix), MOST_LISTED + 1)]
        if len(found) > MOST_LISTED:
            raise self._too_many(prefix)
        return sorted(found)

    def stream(self, prefix: str = "") -> Iterator[Listed]:
        """Yields the objects whose keys begin with `prefix`, as the server lists them, a page at a time."""

        def read(key: str, item: Mapping[str, Any], _: object) -> Listed:
            return Listed(key, str(item["ETag"]), int(item["Size"]))

        return self._objects(prefix, read)

    def files(self) -> Sequence[Listed]:
        """Returns the objects without the empty ones that some tools create for a folder: `a/`, or `a` beside `a/b`."""
        found = [item for item in self.listed() if not item.key.endswith("/")]
        folders = folders_among({item.key for item in found if item.size == 0}, (item.key for item in found))
        return [item for item in found if item.key not in folders]

    def delete(self, key: str) -> None:
        """Removes an object if it exists."""
        with s3_errors(self._at, key):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(key))

    @contextmanager
    def _answer(self, key: str, **options: str) -> Iterator[Mapping[str, Any]]:
        """Yields the server's answer to a request for an object, whose body is closed at the end of the block."""
        answer = self._client.get_object(Bucket=self.bucket, Key=self._key(key), **options)
        with closing(answer["Body"]):
            yield answer

    @contextmanager
    def _answer_from(self, key: str, whole: Version, start: int, end: int) -> Iterator[Mapping[str, Any]]:
        """Yields the answer to a request for an object's bytes from `start` to before `end`; raises UnavailableError if it has others."""
        with self._answer(key, Range=f"bytes={start}-{end - 1}", IfMatch=whole.etag) as answer:
            wanted, found = f"bytes {start}-{end - 1}/{whole.length}", answer.get("ContentRange")
            if found != wanted:
                raise UnavailableError(
                    f"{self.url}/{key}: the server was asked for {wanted}, and sent {shown(found)}; {PORTAL}"
                )
            yield answer

    def _length(self, answer: Mapping[str, Any], key: str) -> int:
        """Returns how many bytes an answer announces."""
        length = answer.get("ContentLength")
        if length is None:
            raise UnavailableError(f"{self.url}/{key}: what answers does not say how long it is, as S3 does; {PORTAL}")
        return int(length)

    def _chunks(self, answer: Mapping[str, Any], key: str) -> Iterator[bytes]:
        """Yields the bytes of an answer; raises ArtifactError before more arrive than it announces, as an answer in chunks may bring."""
        length, done = self._length(answer, key), 0
        while chunk := answer["Body"].read(CHUNK):
            done += len(chunk)
            if done > length:
                raise too_long(f"{self.url}/{key}", length)
            yield chunk

    def stat(self, key: str) -> Stored | None:
        """Returns the object's size and age by the server's clock, or None if it does not exist."""

        def read(found: Mapping[str, Any]) -> Stored:
            return Stored(key, int(found["ContentLength"]), self._age(found["LastModified"], found))

        return self._head(key, read)

    def scan(self, prefix: str) -> Iterator[Stored]:
        """Yields the objects whose keys begin with `prefix`, as the server lists them, a page at a time."""

        def read(key: str, item: Mapping[str, Any], page: Mapping[str, Any]) -> Stored:
            return Stored(key, int(item["Size"]), self._age(item["LastModified"], page))

        return self._objects(prefix, read)

    def move(self, key: str, target: str) -> None:
        """Gives an object another key, under which its age begins again: the server copies it, then removes the old one. Raises NotFound."""
        source = {"Bucket": self.bucket, "Key": self._key(key)}
        with s3_errors(self._at, key):
            self._client.copy(source, self.bucket, self._key(target), Config=COPY)
        self.delete(key)

    def unfinished(self) -> Iterator[Unfinished]:
        """Yields the uploads in parts that were neither completed nor abandoned."""
        uploads = self._client.get_paginator("list_multipart_uploads")
        parts = self._client.get_paginator("list_parts")
        with s3_errors(self._at, ""):
            for page in uploads.paginate(Bucket=self.bucket, Prefix=self._at.prefix):
                for upload in page.get("Uploads", ()):
                    named = {"Bucket": self.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                    ages = [self._age(upload["Initiated"], page)]
                    try:
                        for arrived in parts.paginate(**named):
                            ages += [self._age(part["LastModified"], arrived) for part in arrived.get("Parts", ())]
                    except self._client.exceptions.NoSuchUpload:  # completed meanwhile
                        continue
                    yield Unfinished(upload["Key"].removeprefix(self._at.prefix), upload["UploadId"], min(ages))

    def abandon(self, write: Unfinished) -> None:
        """Removes the parts of an upload, unless it has ended meanwhile."""
        name = self._key(write.key)
        with s3_errors(self._at, write.key), suppress(self._client.exceptions.NoSuchUpload):
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=name, UploadId=write.id)

    def _head(self, key: str, read: Callable[[Mapping[str, Any]], T]) -> T | None:
        """Returns what `read` makes of the server's description of an object, or None if it does not exist."""
        try:
            with s3_errors(self._at, key):
                return read(self._client.head_object(Bucket=self.bucket, Key=self._key(key)))
        except NotFound:
            self._check_bucket()  # the answer to HEAD has no body that could tell a missing bucket from a missing key
            return None

    def _objects(self, prefix: str, read: Callable[[str, Mapping[str, Any], Mapping[str, Any]], T]) -> Iterator[T]:
        """Yields what `read` makes of each object whose key begins with `prefix`: of its key, its entry and the page of the listing with it.

        Probes that a killed process left are no objects.
        """
        if folder := prefix.rpartition("/")[0]:
            checked_name(folder, self.url)
        pages = iter(
            self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._at.prefix + prefix)
        )
        for _ in range(MOST_LISTED):
            with s3_errors(self._at, prefix):
                if (page := next(pages, None)) is None:
                    return
                entries = [(item["Key"].removeprefix(self._at.prefix), item) for item in page.get("Contents", ())]
                found = [read(key, item, page) for key, item in entries if not key.startswith(PROBE)]
            yield from found
        raise self._too_many(prefix)  # a server may send pages without objects for ever

    def _too_many(self, prefix: str) -> ArtifactError:
        return ArtifactError(
            f"{self.url}/{prefix}: more than {MOST_LISTED:,} objects are listed; name a prefix that holds fewer"
        )

    def _age(self, written: datetime, answer: Mapping[str, Any]) -> float:
        """Returns the seconds from a time of the server's to its answer, so that no other clock matters."""
        try:
            now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
            return max(0.0, (now - written).total_seconds())
        except (KeyError, ValueError, TypeError) as error:  # the last if one of both has no time zone
            raise ArtifactError(
                f"{self._at.endpoint}: its answers have no time (the header Date), so that ages are unknown"
            ) from error

    def _key(self, key: str) -> str:
        """Returns the full key in the bucket, after checking that it is a valid path, as some servers keep objects as files."""
        return self._at.prefix + checked_name(key, self.url)

    def _create(self, key: str, data: bytes) -> bool:
        """Writes an object if there is none; returns False if there is one."""

        def write() -> bool:
            try:
                with s3_errors(self._at, key):
                    self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, IfNoneMatch="*")
            except AlreadyExists:
                return False
            return True

        warn = partial(log.warning, "another write is under way", key=key)
        try:
            return retrying(WriteConflict, WRITE_BACKOFF, warn, self._at.attempts)(write)
        except WriteConflict as conflict:
            raise UnavailableError(
                f"{self.url}/{key}: other writes were under way in {self._at.attempts} attempts; run again"
            ) from conflict

    def _read_whole(self, key: str, read: Callable[[], T]) -> T:
        """Returns what `read` returns; calls it again if a body was cut short, as botocore retries requests, not bodies."""

        def attempt() -> T:
            try:
                with s3_errors(self._at, key):
                    return read()
            except AlreadyExists:
                # the condition of a read is that the object is still the one of which a part was read
                raise UnavailableError(
                    f"{self.url}/{key}: was replaced while it was read; run the same command again"
                ) from None

        warn = partial(log.warning, "retry of a body that was cut short", key=key)
        return retrying(CutShort, READ_BACKOFF, warn, self._at.attempts)(attempt)

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
        try:
            with s3_errors(self._at, key):
                self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data)
        except NotFound:  # MinIO says so of a bucket for a moment as it starts
            raise no_bucket(self._at) from None
        try:
            found = self.get(key)
        except NotFound:
            found = b""
        if found != data:
            raise ArtifactError(
                f"{self._at.endpoint}: accepts a write to {self.url} but gives back something else; {PORTAL}"
            )
        try:
            self.delete(key)
        except ArtifactError:  # a key may have no right to delete
            log.info("an object of a probe stays, as it may not be deleted", key=key)

    def _check_bucket(self) -> None:
        if not self._bucket_seen:
            try:
                with s3_errors(self._at, ""):
                    self._client.head_bucket(Bucket=self.bucket)
            except NotFound:
                raise no_bucket(self._at) from None
            self._bucket_seen = True

    def _log_retry(
        self, attempts: int, operation: Any, response: Any = None, caught_exception: Any = None, **_: Any
    ) -> None:
        """Logs a retry. botocore calls it after each request; its own handler retries on the same conditions."""
        status = response[0].status_code if response is not None else None
        if attempts < self._at.attempts and (caught_exception is not None or (status or 0) >= 500 or status == 429):
            reason = caught_exception if caught_exception is not None else f"status {status}"
            log.warning("retry", operation=operation.name, bucket=self.bucket, attempt=attempts, error=reason)
