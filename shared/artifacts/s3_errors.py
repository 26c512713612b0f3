"""Turns the refusals and failures of S3 servers, and of what else may answer in their place, into errors for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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

from shared.artifacts.s3_client import CREDENTIALS, UNAVAILABLE, said
from shared.artifacts.store import NotFound
from shared.errors import ArtifactError, ConfigError, UnavailableError
from shared.names import shown

WRONG_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "301", "400")
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired")
UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "No such file")
"""Lists words of an error of TLS that no retry mends: an unknown signer, or a file of signers that is not there."""
PORTAL = (
    "a proxy or a login page of the network may answer in its place: log in, or fix AWS_ENDPOINT_URL_S3 or HTTP_PROXY"
)


@dataclass(frozen=True)
class Address:
    """Says where a store is, for messages."""

    bucket: str
    prefix: str
    """Holds what the keys of all its objects begin with: nothing, or a text that ends in `/`."""
    endpoint: str
    attempts: int
    """Counts how often a request is tried."""


class AlreadyExists(ArtifactError):
    """Says that a conditional write found an object under its key."""


class WriteConflict(ArtifactError):
    """Says that another write of the same key is running."""


class CutShort(UnavailableError):
    """Says that the connection ended before the whole body had arrived."""


def no_bucket(at: Address) -> ArtifactError:
    """Returns the error for a bucket that does not exist."""
    return ArtifactError(
        f"{at.endpoint}: has no bucket {at.bucket!r}; create it, or name another in TAILFILL_STORE or the study"
    )


@contextmanager
def s3_errors(at: Address, key: str) -> Iterator[None]:
    """Turns what goes wrong in a request about an object into our errors; a block holds the request and the reading of its answer alone."""
    where = f"s3://{at.bucket}/{at.prefix}{key} at {at.endpoint}"
    try:
        yield
    except ClientError as error:
        raise _refusal(error, at, key, where) from error
    except (IncompleteReadError, ResponseStreamingError) as error:
        raise CutShort(f"{where}: its body was cut short ({error}); run the same command again") from error
    except UNAVAILABLE as error:
        if isinstance(
            error.kwargs.get("error"), RecursionError
        ):  # botocore wraps it if it happens while a request is sent
            raise UnavailableError(f"{where}: what answers does not speak S3; {PORTAL}") from error
        if isinstance(error, SSLError) and any(words in str(error) for words in UNTRUSTED):
            raise ConfigError(
                f"{where}: its certificate cannot be checked ({said(error)}); "
                "name a file with that of who signed it in TAILFILL_CA_FILE, beside the machine's, or alone in AWS_CA_BUNDLE"
            ) from error
        fix = "AWS_ENDPOINT_URL_S3"
        if isinstance(error, ProxyConnectionError):
            fix = "the proxy that HTTP_PROXY or HTTPS_PROXY names, or except this server in NO_PROXY"
        raise UnavailableError(
            f"{where}: the server does not answer after {at.attempts} attempts ({error}); "
            f"start it or fix {fix}, then run the same command again"
        ) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise ArtifactError(f"{where}: there are no credentials for it; set {CREDENTIALS}") from error
    except RecursionError as error:  # botocore follows redirects that never end by recursion
        raise UnavailableError(f"{where}: what answers does not speak S3; {PORTAL}") from error
    except (
        ResponseParserError,
        KeyError,
        ValueError,
    ) as error:  # a part of the answer is not there, or no number or time
        raise UnavailableError(f"{where}: what answers does not speak S3 ({said(error)}); {PORTAL}") from error
    except BotoCoreError as error:
        raise ArtifactError(
            f"{where}: the request cannot be made ({said(error)}); fix the AWS_* variables or ~/.aws/config"
        ) from error


def _refusal(error: ClientError, at: Address, key: str, where: str) -> Exception:
    code = error.response["Error"].get("Code", "")
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    text = " ".join(error.response["Error"].get("Message", "").split())
    if code == "NoSuchBucket":
        return no_bucket(at)
    if code == "NoSuchUpload":
        return UnavailableError(
            f"{where}: its parts were removed before it was whole, by `tailfill gc` or a rule of the bucket; run the same command again"
        )
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
        return ArtifactError(f"{where}: the session token is refused ({code}); get new temporary keys, then run again")
    if status in (401, 403):
        return ArtifactError(
            f"{where}: access refused ({code}); check {CREDENTIALS} and the rights of that key on the bucket"
        )
    if "html" in headers.get("content-type", ""):
        return UnavailableError(f"{where}: what answers ({status}, HTML) does not speak S3; {PORTAL}")
    if status >= 500 and code != "NotImplemented":
        return UnavailableError(
            f"{where}: the server failed with {status} {code} in {at.attempts} attempts; if its disk is full, "
            "free some space there, then run the same command again"
        )
    if status in (408, 429):
        return UnavailableError(f"{where}: the server is too busy ({code}); run the same command again")
    if code == "NotImplemented":
        text = f"{text}; it may lack conditional writes (If-None-Match), which a commit needs"
    refused = f"{where}: refused with {status} {code}: {text}"
    match status:
        case 409:
            return WriteConflict(refused)
        case 412:
            return AlreadyExists(refused)
        case _:
            return ArtifactError(refused)
