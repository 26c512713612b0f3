from __future__ import annotations

import ast
from pathlib import Path

from shared.deploy.usage import HEAD


def statements(code: str) -> list[str]:
    """Returns the statements, however they are laid out, without the imports: a card has more lines, which need more of them."""
    return [ast.dump(node) for node in ast.parse(code).body if not isinstance(node, ast.Import | ast.ImportFrom)]


def test_the_lines_of_the_documentation_are_those_of_the_card() -> None:
    text = (Path(__file__).parents[3] / "docs" / "model.md").read_text(encoding="utf-8")
    assert statements(text.split("```python\n")[1].split("```")[0]) == statements(HEAD)
