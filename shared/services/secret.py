"""Makes random secrets for the servers on this machine, and keeps them in the work directory, readable by its owner only."""

from __future__ import annotations

import datetime
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from shared.errors import UnavailableError

FIRST_DAY = datetime.datetime(2000, 1, 1)  # valid whatever this machine's clock says, now and later
LAST_DAY = datetime.datetime(9999, 12, 31, 23, 59, 59)  # RFC 5280 for "it does not expire"


@dataclass(frozen=True)
class Certificate:
    """Holds the paths of a certificate and its private key, in PEM."""

    certificate: Path
    key: Path


def kept_secret(path: Path) -> SecretStr:
    """Returns the secret in a file of mode 0600; makes a random one (letters and digits, 160 bits) if there is no such file."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        text = secrets.token_hex(20)
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        _write(temporary, text.encode())
        os.replace(temporary, path)
    return SecretStr(text)


def kept_certificate(folder: Path) -> Certificate:
    """Returns the certificate in a folder of mode 0700; makes one if there is no such folder.

    It is self-signed. A server that presents it and trusts no other accepts only clients that have its key.
    """
    if not folder.exists():
        temporary = folder.with_suffix(".new")
        shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed here
        temporary.mkdir(mode=0o700)
        certificate, key = _self_signed()
        _write(temporary / "certificate.pem", certificate)
        _write(temporary / "key.pem", key)
        os.rename(temporary, folder)
    return Certificate(folder.resolve() / "certificate.pem", folder.resolve() / "key.pem")


def _write(path: Path, content: bytes) -> None:
    """Writes a new file, readable by its owner only, through to the disk, as the caller renames it next."""
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _self_signed() -> tuple[bytes, bytes]:
    """Returns a new certificate and its key, in PEM."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise UnavailableError(
            "SeaweedFS: the package `cryptography`, which makes its certificate, is not installed; run `pip install cryptography`, "
            "or name an S3 server in AWS_ENDPOINT_URL_S3 and TAILFILL_STORE"
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tailfill")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(FIRST_DAY)
        .not_valid_after(LAST_DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), private
