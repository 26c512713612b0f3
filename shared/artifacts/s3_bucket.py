"""Creates buckets, on a server of one's own."""

from __future__ import annotations

from botocore.exceptions import ClientError
from pydantic import SecretStr

from shared.artifacts.s3_client import CREDENTIALS, UNAVAILABLE, new_client
from shared.errors import ConfigError, UnavailableError
from shared.settings import Settings


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
