"""Runs the comparison of a benchmark as a command: in a temporary folder, with its figures as a table and, if asked, as JSON."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from shared import log
from shared.errors import TailfillError


def run_comparison(compare: Callable[[Path], Any], table: Callable[[Any], str], json_file: Path | None) -> None:
    """Prints the table of what `compare` returns, a dataclass, and writes that to a file if one is named. An error of tailfill ends the command."""
    log.configure("text")
    with tempfile.TemporaryDirectory() as temporary:
        try:
            found = compare(Path(temporary))
        except TailfillError as error:
            raise click.ClickException(str(error)) from error
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(found), indent=1) + "\n")
    click.echo(table(found))
