"""Looks up known advisories on every package of the locks: `make audit`, which needs the network and is therefore no part of `make test`.

It ends with 2 if there is an advisory, and with 75 if a package could not be looked up, as an answer is then missing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ADVISORIES = 2
UNAVAILABLE = 75


def audit(lock: str) -> int:
    """Prints what is known of the packages of a lock; returns the exit code."""
    # as they stand: the lock names all dependencies, and nothing is installed
    command = [
        str(Path(sys.executable).with_name("pip-audit")),
        "--disable-pip",
        "--no-deps",
        "--progress-spinner=off",
        "--format=json",
        "--requirement",
        lock,
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = (ended.stderr.strip() or f"it ended with {ended.returncode}").splitlines()[-1]
        print(f"{lock}: not looked up, as the advisory service could not be reached ({said}); try again with a network")
        return UNAVAILABLE
    unknown = [package for package in packages if "skip_reason" in package]
    known = [(package, advisory) for package in packages for advisory in package.get("vulns", ())]
    for package, advisory in known:
        fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
        print(f"{lock}: {package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}")
    if unknown:
        print(
            f"{lock}: {len(unknown)} of {len(packages)} packages were not looked up, as the advisory service did not answer for them "
            f"({unknown[0]['skip_reason']}); try again with a network that reaches it"
        )
    if not known and not unknown:
        print(f"{lock}: no known advisory on its {len(packages)} packages")
    return ADVISORIES if known else UNAVAILABLE if unknown else 0


def main(locks: Sequence[str]) -> int:
    """Audits the locks; returns the exit code that weighs most."""
    codes = [audit(lock) for lock in locks]
    return ADVISORIES if ADVISORIES in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
