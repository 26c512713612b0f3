"""Makes clients of S3 servers as boto3 finds region, keys and profile, and turns what goes wrong in that into our errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    InvalidRegionError,
    MetadataRetrievalError,
    ProfileNotFound,
    ResponseStreamingError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from pydantic import SecretStr
from urllib3.exceptions import HTTPError as URLLibError

from shared.artifacts.authorities import joined_authorities
from shared.artifacts.store import LARGEST_IN_MEMORY
from shared.errors import ArtifactError, ConfigError, UnavailableError
from shared.names import shown
from shared.settings import Authorities

CONNECT_SECONDS = 5
READ_SECONDS = 60
UNAVAILABLE = (BotoConnectionError, HTTPClientError, IncompleteReadError, ResponseStreamingError)
DEFAULT_REGION = "us-east-1"  # which every S3 server but Amazon's accepts
CHUNK = 1 << 16
LONGEST = 300  # characters of another's words in a message
CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def new_client(
    endpoint: str | None,
    region: str | None,
    access_key: SecretStr | None,
    secret_key: SecretStr | None,
    attempts: int,
    session_token: SecretStr | None = None,
    addressing: str | None = None,
    authorities: Authorities | None = None,
) -> Any:
    """Returns a client for the server; without keys, boto3 finds them as it always does. Raises ConfigError and UnavailableError.

    `authorities` are trusted beside those that are trusted without them.
    """
    keys = {}
    if access_key is not None and secret_key is not None:
        keys = {
            "aws_access_key_id": access_key.get_secret_value(),
            "aws_secret_access_key": secret_key.get_secret_value(),
        }
        if session_token is not None:  # boto3 takes none from the environment for keys that are given to it
            keys["aws_session_token"] = session_token.get_secret_value()
    _check_endpoint(endpoint)
    with _setup_errors():
        session = boto3.session.Session()  # one of its own: the default one is not safe to make from threads
        if authorities is not None:  # for the session, which makes a client of STS too for a role's credentials
            replaced = session._session.get_config_variable("ca_bundle") or authorities.bundle
            session._session.set_config_variable("ca_bundle", joined_authorities(authorities.file, replaced))
        if not keys and (credentials := session.get_credentials()) is not None:
            credentials.get_frozen_credentials()  # here, so that what their source says is not taken for the server's words
        style = addressing or (session._session.get_scoped_config().get("s3") or {}).get("addressing_style")
        client = session.client(
            "s3",
            endpoint_url=endpoint,
            region_name=region or session.region_name or DEFAULT_REGION,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": style or "path"},
                retries={"mode": "standard", "total_max_attempts": attempts},
                connect_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
                max_pool_connections=64,  # files and parts of files are read at the same time
                # digests are ours; servers other than Amazon's may lack the checksum trailers that boto3 sends unasked
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
            **keys,
        )
        _bound_answers(client)
        return client


def _bound_answers(client: Any) -> None:
    """Lets a client read no answer into memory that has no end, such as a page of a listing or an error.

    botocore has no such limit, and no setting for one. The bodies of objects are read by the store itself.
    """
    session = client._endpoint.http_session
    send = session.send

    def bounded(request: Any) -> Any:
        streamed, request.stream_output = request.stream_output, True  # else `send` reads it
        answer = send(request)
        if not streamed or answer.status_code >= 300:
            answer._content = _read(answer)  # which botocore takes for what it has read
        return answer

    session.send = bounded


def _read(answer: Any) -> bytes:
    """Returns the body of an answer; raises ArtifactError as soon as there are more than LARGEST_IN_MEMORY bytes of it."""
    data = bytearray()
    try:
        for part in answer.raw.stream(CHUNK):
            data += part
            if len(data) > LARGEST_IN_MEMORY:
                answer.raw.close()
                raise ArtifactError(
                    f"{urlsplit(answer.url).netloc}: answers a request with more than {LARGEST_IN_MEMORY:,} bytes, which no S3 "
                    "server does; fix AWS_ENDPOINT_URL_S3"
                )
    except URLLibError as error:
        raise HTTPClientError(error=error) from error
    return bytes(data)


def _check_endpoint(endpoint: str | None) -> None:
    """Raises ConfigError for an endpoint that is no URL, or that holds keys, which every message would show."""
    if endpoint is None:
        return
    try:
        parts = urlsplit(endpoint)
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        raise ConfigError("AWS_ENDPOINT_URL_S3: must be like http://host:port, with a port from 1 to 65535") from None
    if "@" in endpoint:
        raise ConfigError(f"AWS_ENDPOINT_URL_S3: must be like http://host:port, without keys; set {CREDENTIALS}")
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_fits or parts.query or parts.fragment:
        raise ConfigError(f"AWS_ENDPOINT_URL_S3: must be like http://host:port, got {shown(endpoint)}")


@contextmanager
def _setup_errors() -> Iterator[None]:
    """Turns what goes wrong before the first request, in boto3's files and sources of credentials, into errors of ours."""
    try:
        yield
    except ProfileNotFound as error:
        raise ConfigError(f"AWS_PROFILE: {said(error)}; unset it, or name one that ~/.aws/config has") from error
    except InvalidRegionError as error:
        raise ConfigError(f"AWS_REGION: {said(error)}; name one like eu-west-1") from error
    except (SSOError, TokenRetrievalError) as error:
        raise ConfigError(f"credentials of AWS: {said(error)}; run `aws sso login`, then run again") from error
    except (*UNAVAILABLE, MetadataRetrievalError) as error:
        raise UnavailableError(
            f"credentials of AWS: their source does not answer ({said(error)}); run again"
        ) from error
    except ClientError as error:
        code = error.response["Error"].get("Code", "")
        if error.response["ResponseMetadata"]["HTTPStatusCode"] >= 500:
            raise UnavailableError(f"credentials of AWS: their source failed ({code}); run again") from error
        raise ConfigError(
            f"credentials of AWS: their source refuses us ({said(error)}); fix the profile or role"
        ) from error
    except (BotoCoreError, OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(
            f"settings of AWS: boto3 cannot use them ({said(error)}); fix ~/.aws/config, ~/.aws/credentials or the AWS_* variables"
        ) from error


def said(error: BaseException) -> str:
    """Returns an error's words on one line, with its type if there are few of them."""
    text = " ".join(str(error).split())[:LONGEST] or type(error).__name__
    return f"{type(error).__name__}: {text}" if isinstance(error, KeyError | ValueError | OSError) else text
