from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from shared.artifacts import fingerprint as module
from shared.artifacts.fingerprint import fingerprint, libraries, modules_of

FILES = {
    "jobs/__init__.py": "",
    "jobs/prepare.py": '''
        """A stage."""
        import os

        def run():
            from shared.data import table
            from ..shared.never import x  # leaves the package: none of ours
            return table.f()
        ''',
    "shared/__init__.py": "",
    "shared/data/__init__.py": "from .deep import y",
    "shared/data/table.py": "import shared.other\n\ndef f():\n    'Words.'\n    return 1  # one\n",
    "shared/data/deep.py": 'y = {"a": "shared.named:f", "b": "shared.unused"}',
    "shared/other.py": "z = 1",
    "shared/named.py": "def f(): return 1",
    "shared/unused.py": "z = 1",
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    monkeypatch.setattr(module, "ROOT", tmp_path)
    module._code.cache_clear()
    yield tmp_path
    module._code.cache_clear()


def changed(root: Path, name: str, text: str) -> bool:
    before = fingerprint("prepare")
    (root / name).write_text(textwrap.dedent(text))
    module._code.cache_clear()
    return fingerprint("prepare") != before


def test_imports_are_followed_wherever_they_stand(root: Path) -> None:
    assert modules_of("jobs.prepare") == [
        "jobs.prepare", "shared", "shared.data", "shared.data.deep", "shared.data.table", "shared.named", "shared.other",
    ]  # fmt: skip


def test_what_computes_changes_the_fingerprint(root: Path) -> None:
    assert changed(root, "shared/other.py", "z = 2")
    assert changed(root, "shared/data/table.py", "import shared.other\n\ndef f():\n    return 2\n")
    assert changed(root, "shared/named.py", "def f(): return 2")
    assert not changed(root, "shared/unused.py", "z = 2")


def test_words_and_places_do_not(root: Path) -> None:
    text = '"""Other words."""\n\n# a comment\nimport shared.other\n\n\ndef f():\n    """Longer\n    words."""\n\n    return (1)\n'
    assert not changed(root, "shared/data/table.py", text)


def test_what_cannot_change_an_output_is_left_out(root: Path) -> None:
    (root / "shared/log.py").write_text("z = 1")
    (root / "shared/other.py").write_text("import shared.log")
    module._code.cache_clear()
    assert "shared.log" not in modules_of("jobs.prepare")
    assert not changed(root, "shared/log.py", "z = 2")


def test_libraries_are_those_installed() -> None:
    found = libraries()
    assert found["numpy"] == metadata.version("numpy")
    assert "boto3" not in found


def test_no_heavy_import() -> None:
    code = "import sys, shared.artifacts.fingerprint as f; f.libraries(); print('torch' in sys.modules, 'boto3' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False False\n"
