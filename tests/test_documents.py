"""Tests that links, commands, options and make targets in the documents exist, and that the README is short."""

from __future__ import annotations

import re
import shlex
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
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


@cache
def anchors(document: Path) -> set[str]:
    """Returns the anchors of a document's headings, as GitHub makes them."""
    text = FENCED.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@documents
def test_every_link_leads_somewhere(document: Path) -> None:
    text = FENCED.sub("", document.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (document.parent / file).resolve() if file else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def code(document: Path) -> list[str]:
    """Returns the lines of all code blocks, with continued lines joined and without comments, and all code within sentences."""
    text = document.read_text(encoding="utf-8")
    blocks = [line for block in FENCED.findall(text) for line in block.replace("\\\n", " ").splitlines()[1:-1]]
    spans = re.findall(r"`([^`\n]+)`", FENCED.sub("", text))
    return [re.split(r"(?:^|\s)#\s", line)[0].replace(r"\|", "|") for line in [*blocks, *spans]]


def commands(document: Path) -> list[list[str]]:
    """Returns the words after `tailfill` of every command in a document's code, including options in brackets."""
    found = []
    for line in code(document):
        for part in re.split(r"&&|\||;|\$\(|<\(|\)", re.sub(r"[\[\]]", " ", line)):
            if match := re.match(r"\s*(?:\.venv/bin/)?tailfill\s+(.*)", part):
                found.append(shlex.split(match[1]))
    return found


@documents
def test_every_command_and_option_exists(document: Path) -> None:
    for words in commands(document):
        command: click.Command = cli
        options = known_options(command)
        for word in words:
            if word.startswith("-"):
                assert word.split("=")[0] in options, words
            elif isinstance(command, click.Group) and not word.isupper() and word not in ("json", "text"):
                assert word in command.commands, words
                command = command.commands[word]
                options |= known_options(command)


def known_options(command: click.Command) -> set[str]:
    """Returns a command's options, by all their names."""
    context = click.Context(command)
    return {name for parameter in command.get_params(context) for name in parameter.opts} | {"--help", "-h"}


def test_the_check_of_commands_sees_them() -> None:
    found = commands(ROOT / "README.md")
    assert ["init", "DATA"] in found
    assert ["status", "--release", "study", "-n", "study"] in found
    assert ["run", "STUDY", "--set", "path=value", "--workers", "N", "--rerun", "STAGE"] in found


@documents
def test_every_target_exists(document: Path) -> None:
    makefiles = (ROOT / "Makefile").read_text() + (ROOT / "k8s" / "kind.mk").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", makefiles, re.MULTILINE))
    for line in code(document):
        if match := re.match(r"\s*(?:[A-Z_]+=\S+ +)*make +(.*)", line):
            names = [
                word for word in shlex.split(match[1]) if "=" not in word and re.fullmatch(r"[a-z][a-z0-9-]*", word)
            ]
            assert set(names) <= targets, line


def test_the_readme_fits_a_screen_or_three() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
