"""Says which classes the cells of a label column name, as pandas and people write them."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence

from shared.config.dataset import CsvGroup
from shared.data.sources.csv_file import INVISIBLE

MISSING = frozenset({
    "nan", "NaN", "-nan", "-NaN", "null", "NULL", "<NA>", "#N/A", "#N/A N/A", "#NA", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
})  # fmt: skip
"""Lists what pandas reads as a missing value, and no person writes as a class."""
MISSING_OR_CLASS = frozenset({"None", "NA", "N/A", "n/a"})
"""Lists what pandas reads as a missing value too, but what may also be a class: no finding, North America."""

_WHOLE = re.compile(r"[+-]?[0-9]+(\.0+)?")
_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_ITEM = re.compile(rf"\s*({_QUOTED}|[^\s,'\"\[\]{{}}()][^,'\"\[\]{{}}()]*)\s*(?:,|(?=['\"])|$)")


def is_missing(cell: str) -> bool:
    """Returns whether a cell that holds no class, such as a 0/1 value or a patient, is blank or holds pandas' mark of a missing value."""
    return not cell or cell in MISSING or cell in MISSING_OR_CLASS


def is_whole(name: str) -> bool:
    """Returns whether the text is a whole number, which pandas writes as 1.0 if a column has blanks."""
    return _WHOLE.fullmatch(name) is not None


def whole(name: str) -> str:
    """Returns a whole number without its decimals: 1 for 1.0."""
    return name.partition(".")[0]


def spelling(name: str) -> str:
    """Returns the name in Unicode's composed form (NFC), without invisible characters and with single blanks of the usual kind."""
    visible = unicodedata.normalize("NFC", name).translate(dict.fromkeys(map(ord, INVISIBLE)))
    return " ".join(visible.split())


def bracketed(cell: str) -> list[str] | None:
    """Returns the names of a list in brackets, as Python, NumPy, JSON (`["a", "b"]`) and PostgreSQL (`{a,b}`) write it; None if it is none."""
    if len(cell) < 2 or (cell[0], cell[-1]) not in {("[", "]"), ("{", "}"), ("(", ")")}:
        return None
    inside, names, position = cell[1:-1].strip(), [], 0
    while position < len(inside):
        item = _ITEM.match(inside, position)
        if item is None or (cell[0] == "(" and item[1][0] not in "'\""):
            return None
        names.append(_unquoted(item[1].strip()))
        position = item.end()
    return names


def _unquoted(name: str) -> str:
    """Returns a name without its quotes, if it has any, and with its escapes read as JSON or Python does."""
    if name[0] not in "'\"":
        return name
    for read in (json.loads, ast.literal_eval):
        try:
            text = read(name)
        except (ValueError, SyntaxError):
            continue
        if isinstance(text, str):
            return text
    return re.sub(r"\\(.)", r"\1", name[1:-1])


def holds_brackets(cells: Iterable[str]) -> bool:
    """Returns whether cells hold lists in brackets; single names may stand among them."""
    found = False
    for cell in cells:
        if bracketed(cell) is not None:
            found = True
        elif cell and not is_missing(cell) and any(sign in cell for sign in "[]{}"):
            return False
    return found


class LabelCells:
    """Reads the cells of the column of a label group.

    A class that is written in several ways (Unicode forms, kinds of blanks, 1 and 1.0) is one; if it is written in one way, that is its name.
    """

    def __init__(self, group: CsvGroup, cells: Sequence[str]) -> None:
        self._group = group
        self._brackets = group.kind == "any" and holds_brackets(cells)
        names = list(dict.fromkeys(name for cell in dict.fromkeys(cells) for name in self._written(cell)))
        known = group.classes or names
        self._whole = all(is_whole(name) for name in known)
        written: dict[str, list[str]] = {}
        for name in known:
            written.setdefault(self._key(name), []).append(name)
        self._exact = {name: name for name in group.classes or ()}
        self._class = {key: forms[0] if len(forms) == 1 or group.classes else key for key, forms in written.items()}

    @property
    def found(self) -> tuple[str, ...]:
        """Lists the classes that are in the column, or those that the study names, sorted."""
        return tuple(sorted(set(self._class.values())))

    def read(self, cell: str) -> list[str] | None:
        """Returns the classes in a cell, None if that is unknown; a name that is none of the group's classes is returned as it is written."""
        if self._is_unknown(cell):
            return None
        return [self._exact.get(name) or self._class.get(self._key(name), name) for name in self._written(cell)]

    def _is_unknown(self, cell: str) -> bool:
        if not cell or cell in (self._group.classes or ()):
            return not cell
        return cell in MISSING or (self._group.classes is not None and cell in MISSING_OR_CLASS)

    def _written(self, cell: str) -> list[str]:
        if self._is_unknown(cell):
            return []
        if self._group.kind == "one":
            return [cell]
        names = bracketed(cell) if self._brackets else None
        parts = names if names is not None else [cell] if self._brackets else cell.split(self._group.separator)
        return [name.strip() for name in parts if name.strip()]

    def _key(self, name: str) -> str:
        key = spelling(name)
        return whole(key) if self._whole and is_whole(key) else key
