"""Joins a user's own certificate authorities with those of the machine, since a client of boto3 reads a single file of them."""

from __future__ import annotations

import atexit
import functools
import re
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

from botocore.httpsession import where

from shared.artifacts.disk import disk_errors
from shared.errors import ConfigError

LARGEST = 16 * 2**20  # bytes of a file; those of all public authorities are 300 kB
HASHED = re.compile(r"[0-9a-f]{8}\.\d+")
"""Matches the names under which OpenSSL finds a certificate in a folder."""


@functools.cache
def joined_authorities(own: Path, bundle: str | None) -> str:
    """Returns the path of a file with the authorities of `own` and those that are trusted without it; it is deleted when the process ends.

    `own` is the file that `TAILFILL_CA_FILE` names, and `bundle` the one that replaces the machine's authorities, if there is one
    (`AWS_CA_BUNDLE`, `REQUESTS_CA_BUNDLE`). Raises ConfigError if either cannot be read or holds no certificate.
    """
    parts = [_certificates("TAILFILL_CA_FILE", own)]
    parts += (
        [_certificates("AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE", Path(bundle))]
        if bundle
        else [file.read_bytes() for file in _of_machine()]
    )
    with (
        disk_errors(Path(tempfile.gettempdir())),
        tempfile.NamedTemporaryFile(prefix="tailfill-ca-", suffix=".pem", delete=False) as joined,
    ):
        joined.write(b"\n".join(parts))
    atexit.register(Path(joined.name).unlink, missing_ok=True)
    return joined.name


def _certificates(variable: str, path: Path) -> bytes:
    """Returns what a file holds, once OpenSSL has found certificates in it."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ConfigError(f"{variable}: {path} has more than {LARGEST:,} bytes; name a file of certificates in PEM")
        text = data.decode("ascii", errors="replace").replace("\ufffd", "?")  # a comment may have other letters
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{variable}: {path} holds no certificates in PEM; name a file of them") from error
    except OSError as error:
        raise ConfigError(
            f"{variable}: {path} cannot be read ({error.strerror}); name a file of certificates in PEM"
        ) from error
    return data


def _of_machine() -> Iterator[Path]:
    """Yields the files of authorities that boto3 trusts, and those that OpenSSL does (`SSL_CERT_FILE` and `SSL_CERT_DIR` change these)."""
    yield Path(where())
    paths = ssl.get_default_verify_paths()
    if paths.cafile:
        yield Path(paths.cafile)
    if paths.capath:
        yield from (
            path for path in sorted(Path(paths.capath).iterdir()) if HASHED.fullmatch(path.name) and path.is_file()
        )
