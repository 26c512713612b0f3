"""Tests what `make audit` says, with a stand-in for pip-audit: the real one needs the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.audit import main

FINE = {"name": "numpy", "version": "2.4", "vulns": []}
BAD = {"name": "pillow", "version": "11.0", "vulns": [{"id": "CVE-1", "fix_versions": ["11.1"]}]}
UNKNOWN = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.14.1)"}


@pytest.mark.parametrize(
    ("packages", "code", "says"),
    [
        ([FINE], 0, "a.lock: no known advisory on its 1 packages"),
        ([FINE, BAD], 2, "a.lock: pillow 11.0: CVE-1, fixed in 11.1"),
        ([FINE, UNKNOWN], 75, "1 of 2 packages were not looked up"),
        ([BAD, UNKNOWN], 2, "CVE-1"),
        (None, 75, "could not be reached (no route to host)"),
    ],
)
def test_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], packages: list[dict[str, Any]] | None, code: int, says: str
) -> None:
    program = tmp_path / "pip-audit"
    answer = (
        "echo 'no route to host' >&2; exit 1"
        if packages is None
        else f"cat <<'END'\n{json.dumps({'dependencies': packages})}\nEND"
    )
    program.write_text(f"#!/bin/sh\n{answer}\n")
    program.chmod(0o755)
    assert main([str(program), "a.lock"]) == code
    assert says in capsys.readouterr().out
