"""Tests that no file of the repository holds a secret, by the patterns of detect-secrets: keys of clouds and hubs, tokens, private keys, passwords in URLs.

Its detectors by entropy are left out, as digests fill our pins and locks; so is that by keyword, which takes the name of a Secret for one.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.plugins.basic_auth import BasicAuthDetector
from detect_secrets.plugins.ip_public import IPPublicDetector

ROOT = Path(__file__).parents[1]
LISTED = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
FILES = [ROOT / name for name in LISTED.split("\0") if name and not name.endswith(".png")]
DETECTORS = [
    kind()
    for kind in get_mapping_from_secret_type_to_class().values()
    if issubclass(kind, RegexBasedDetector) and kind is not IPPublicDetector
]
PLACEHOLDER = re.compile(r".{0,4}|.*(password|secret|s3cret).*|\{[A-Z]+\}.*", re.DOTALL)
"""Matches what stands for a password of a URL in documents, scripts and tests, such as the name of a constant in braces."""


def found(file: Path) -> list[str]:
    """Returns the place and kind of each secret in a file, without placeholders."""
    text = file.read_text(encoding="utf-8")  # its own scan reads line by line, which takes twenty times as long
    return [
        f"{file}:{text.count(chr(10), 0, match.start()) + 1}: {detector.secret_type}: {match[0]}"
        for detector in DETECTORS
        for pattern in detector.denylist
        for match in pattern.finditer(text)
        if not (isinstance(detector, BasicAuthDetector) and PLACEHOLDER.fullmatch(match[1]))
    ]


def test_no_file_holds_a_secret() -> None:
    assert len(FILES) > 400
    assert len(DETECTORS) > 20
    assert [each for file in FILES if file.is_file() for each in found(file)] == []


@pytest.mark.parametrize(
    "parts",
    [
        ("AWS_ACCESS_KEY_ID=AKIA", "J7QXRZ2MLPWTVNKD"),
        ("aws_secret_access_key = 'wJalrXUtnFEMI", "K7MDENGbPxRfiCYkQxR7nq4Zw9L'"),
        ("-----BEGIN EC PRIVATE", " KEY-----"),
        ("ghp_", "0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sT0uV1wX"),
        ("postgresql://tailfill:", "8f3a9c1e7b@db.example.org/tailfill"),
        ("ey", "JhbGciOiJIUzI1NiJ9.e30.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"),
        ("https://hooks.slack.com/services/", "T00000001/B00000001/XXXXXXXXXXXXabcdXXXXXXXX"),
    ],
)
def test_the_scan_finds_one(tmp_path: Path, parts: tuple[str, str]) -> None:
    file = tmp_path / "settings.txt"
    file.write_text("".join(parts) + "\n")
    assert found(file)
