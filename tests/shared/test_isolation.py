"""Tests that modules of the current folder are not imported in place of real ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared.isolation import isolated, isolated_children
from tests.support.hostile import OTHERS, OURS, HostileFolder

ROOT = Path(__file__).parents[2]
INSTALLED = str(Path(sys.executable).with_name("tailfill"))
MODULE = (sys.executable, "-m", "jobs")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, ""),
        ("", ""),
        (":", ""),
        (".", ""),
        ("/one:", "/one"),
        (":/one:lib:/two:/one", "/one:/two:/one"),
    ],
)
def test_only_absolute_entries_of_pythonpath_are_handed_on(given: str | None, kept: str) -> None:
    before = {"HOME": "/root"} | ({} if given is None else {"PYTHONPATH": given})
    assert isolated(before) == {"HOME": "/root", "PYTHONSAFEPATH": "1", "PYTHONPATH": kept}


def test_the_environment_is_as_it_was_once_the_children_are_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ":/one")
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    before = dict(os.environ)
    with isolated_children():
        assert (os.environ["PYTHONPATH"], os.environ["PYTHONSAFEPATH"]) == ("/one", "1")
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("command", "path", "modules"),
    [
        ((INSTALLED,), None, None),
        ((INSTALLED,), f":{ROOT}", OTHERS),  # what Python imports at its start comes from an empty entry before we run
        ((INSTALLED,), f".:{ROOT}", OTHERS),
        (MODULE, str(ROOT), OTHERS),
    ],
    ids=["installed", "empty entry", "relative entry", "by its module"],
)
def test_the_command_starts_in_a_hostile_folder(
    tmp_path: Path, command: tuple[str, ...], path: str | None, modules: tuple[str, ...] | None
) -> None:
    hostile = HostileFolder(tmp_path / "user", **({} if modules is None else {"modules": modules}))
    ended = _validate(command, hostile.folder, path)
    assert (ended.returncode, hostile.imported) == (0, []), ended.stderr


def test_modules_beside_the_installed_command_are_not_imported(tmp_path: Path) -> None:
    hostile = HostileFolder(tmp_path / "bin", modules=OTHERS)
    command = hostile.folder / "tailfill"
    command.write_text("from jobs.__main__ import main\nmain()\n")
    ended = _validate((sys.executable, str(command)), tmp_path, str(ROOT))
    assert (ended.returncode, hostile.imported) == (0, []), ended.stderr


def test_a_checkout_runs_without_an_installation(tmp_path: Path) -> None:
    for name in OURS:
        (tmp_path / name).symlink_to(ROOT / name)
    ended = _validate(MODULE, tmp_path, None)
    assert ended.returncode == 0, ended.stderr


def test_whatever_starts_a_python_process_isolates_it() -> None:
    files = [file for package in OURS for file in (ROOT / package).rglob("*.py")]
    starts = [file for file in files if re.search(r"sys\.executable|multiprocessing\.get_context", file.read_text())]
    assert starts
    assert [file for file in starts if not re.search(r"isolated(_children)?\(", file.read_text())] == []


def _validate(command: tuple[str, ...], folder: Path, path: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHONPATH")}
    environment |= {} if path is None else {"PYTHONPATH": path}
    return subprocess.run(
        [*command, "validate", str(ROOT / "studies" / "demo.yaml")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
