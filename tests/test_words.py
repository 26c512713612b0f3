"""Tests that docstrings are sentences, so that each says what the thing does or holds: those of modules and classes begin with a verb."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERB = re.compile(r"(?:`[^`]+`: )?[A-Za-z-]*[^\Ws]s (?!of )")
"""Matches a verb in the third person: `Holds the rows`, but not `Rows of a table`; a stage's name may be before it."""
TRANSLATED = re.compile(r"(?:`[^`]+`: )?(?:is|are|was|has) ", re.IGNORECASE)
"""Matches a beginning without a subject that nobody would write: `Is the number of rows` for `Counts the rows`."""


def files() -> list[Path]:
    """Returns the modules whose docstrings are tested."""
    return [path for package in ("shared", "jobs", "benchmarks") for path in sorted((ROOT / package).rglob("*.py"))]


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the place and the docstring of a module, and of each of its classes that has one."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef) and (text := ast.get_docstring(node)):
            name = node.name if isinstance(node, ast.ClassDef) else "the module"
            yield f"{path.relative_to(ROOT)}: {name}", text


def all_docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the place and the text of every docstring of a module, also of functions, fields and constants."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Expr(value=ast.Constant(value=str() as text)):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", text.strip()


def test_docstrings_of_modules_and_classes_begin_with_a_verb() -> None:
    found = {place: text for path in files() for place, text in docstrings(path)}
    assert len(found) > 200
    wrong = [f'{place}: "{text.splitlines()[0]}"' for place, text in found.items() if not VERB.match(text)]
    assert not wrong, "begin these with a verb, such as `Holds`, `Reads` or `Says`:\n" + "\n".join(wrong)


def test_no_docstring_begins_with_is_or_has() -> None:
    found = {place: text for path in files() for place, text in all_docstrings(path)}
    assert len(found) > 2000
    wrong = [f'{place}: "{text.splitlines()[0]}"' for place, text in found.items() if TRANSLATED.match(text)]
    assert not wrong, "begin these with another verb, such as `Counts`, `Gives` or `Returns`:\n" + "\n".join(wrong)
