"""Tests that the docstrings of modules and classes begin with a verb, so that each says what the thing does or holds."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_YET = ("shared/classifier/", "shared/score/", "shared/config/stages.py")
VERB = re.compile(r"(?:`[^`]+`: )?[A-Za-z-]*[^\Ws]s (?!of )")
"""Matches a verb in the third person: `Holds the rows`, but not `Rows of a table`; a stage's name may be before it."""


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the place and the docstring of a module, and of each of its classes that has one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef) and (text := ast.get_docstring(node)):
            name = node.name if isinstance(node, ast.ClassDef) else "the module"
            yield f"{path.relative_to(ROOT)}: {name}", text


def test_docstrings_of_modules_and_classes_begin_with_a_verb() -> None:
    files = [path for package in ("shared", "jobs") for path in sorted((ROOT / package).rglob("*.py"))]
    checked = [path for path in files if not path.relative_to(ROOT).as_posix().startswith(NOT_YET)]
    found = {place: text for path in checked for place, text in docstrings(path)}
    assert len(found) > 200
    wrong = [f'{place}: "{text.splitlines()[0]}"' for place, text in found.items() if not VERB.match(text)]
    assert not wrong, "begin these with a verb, such as `Holds`, `Reads` or `Says`:\n" + "\n".join(wrong)
