"""Writes cells of CSV files that a spreadsheet shows as text, whatever a class, an experiment or a file is called."""

from __future__ import annotations

from collections.abc import Iterable

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Lists the beginnings by which a spreadsheet takes a cell for a formula, and would run it: those of OWASP's page "CSV Injection",
with the full-width forms of the signs."""


def safe_cells(cells: Iterable[object]) -> list[object]:
    """Returns the cells of a row; text that a spreadsheet would take for a formula gets a `'` before it, which spreadsheets do not show."""
    return [f"'{cell}" if isinstance(cell, str) and cell.lstrip(" ").startswith(FORMULA) else cell for cell in cells]
