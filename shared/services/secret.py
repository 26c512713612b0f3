"""Random secrets of the servers on this machine, kept in the work directory for its owner only."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pydantic import SecretStr


def kept_secret(path: Path) -> SecretStr:
    """The secret in a file of mode 0600; a new random one (letters and digits, 160 bits) where there is no such file."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        text = secrets.token_hex(20)
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(text)
        os.replace(temporary, path)
    return SecretStr(text)
