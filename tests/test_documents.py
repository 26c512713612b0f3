"""The documents promise nothing that is not there: links, commands, targets, and the README's length."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import click
import pytest

from jobs.__main__ import cli

ROOT = Path(__file__).parents[1]
LISTED = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
DOCUMENTS = sorted({ROOT / name for name in LISTED.split()} | set((ROOT / "docs").glob("*.md")))
documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


@cache
def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@documents
def test_every_link_leads_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def commands(group: click.Group, prefix: str = "") -> set[str]:
    """The subcommands of the command, those of groups with the group's name."""
    found = set()
    for name, command in group.commands.items():
        found.add(f"{prefix}{name}")
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix}{name} ")
    return found


@documents
def test_every_command_and_target_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    known = commands(cli)
    for name, after in re.findall(r"(?:^|[`/( ])tailfill ([a-z]+)(?: ([a-z]+))?", text, re.MULTILINE):
        if name in known:
            group = cli.commands[name]
            assert not isinstance(group, click.Group) or not after or f"{name} {after}" in known, f"{name} {after}"
    for name in re.findall(r"`tailfill ([a-z]+)", text):
        assert name in known, name
    makefiles = (ROOT / "Makefile").read_text() + (ROOT / "k8s" / "kind.mk").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", makefiles, re.MULTILINE))
    for name in re.findall(r"(?:`|^|&& )make ([a-z][a-z0-9-]*[a-z0-9])(?![\w*-])", text, re.MULTILINE):
        assert name in targets, name


def test_the_readme_fits_a_screen_or_three() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
