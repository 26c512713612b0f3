"""Reads the rows of a CSV as people's tools write them, without regard to what its columns hold."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.config.dataset import Delimiter as Delimiter
from shared.data.problems import Problems
from shared.errors import DataError
from shared.names import shown

INVISIBLE = "\ufeff\u200b\u2060"
"""Holds characters without width, which text that was copied from web pages and joined files have."""
SHOWN = 12  # columns in a message
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[\s,;|]*', re.IGNORECASE)
Record = tuple[int, list[str]]


@dataclass(frozen=True)
class Row:
    """Holds a row of the table."""

    line: int
    """Gives the line of the file on which the row begins, from 1."""
    cells: dict[str, str]
    """Maps each column to its text, without blanks around it."""
    file: str = ""
    """Names the file of the row, if it is not the table's own."""


@dataclass(frozen=True)
class Table:
    """Holds all rows of a CSV."""

    name: str
    columns: tuple[str, ...]
    rows: list[Row]

    def cells(self, column: str) -> list[str]:
        """Returns the cells of a column, from top to bottom."""
        return [row.cells[column] for row in self.rows]


def listed(names: Sequence[str]) -> str:
    """Returns the first of many names, for a message."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"[{', '.join(shown(name) for name in names[:SHOWN])}]{more}"


def read_table(
    path: Path, problems: Problems, delimiter: str = ",", header: Sequence[str] | None = None, skip_lines: int = 0
) -> Table:
    """Reads a CSV whose first row names its columns, or whose columns are named by `header`, after so many lines.

    If cells are separated by blanks and there are more of them than columns, the last column has all that are left. Else rows with more or fewer cells
    are reported to `problems`. A line `sep=;` at the top, lines of comments that begin with `#`, rows of blank
    cells and blank cells beyond the last column are left out. Raises DataError if the file is missing, empty or not text, or names a column
    twice.
    """
    name, records = path.name, _best_records(path, delimiter)
    records = [record for record in records if record[0] > skip_lines]
    if header is None:
        line, first = records.pop(0) if records else (1, [])
        columns = tuple(cell.strip().strip(INVISIBLE).strip() for cell in first)
        if not columns:
            raise DataError(f"{name}: is empty; its first row must name the columns")
        if any("\0" in column for column in columns):
            raise DataError(f"{name} line {line}: holds null characters, so it is no UTF-8 text; save it as UTF-8")
    else:
        line, columns = 0, tuple(header)
    if twice := [column for column, number in Counter(columns).items() if number > 1 and column]:
        raise DataError(
            f"{name} line {line}: the column {shown(twice[0])} is named twice; rename one, or name all in dataset.header if that line is a row"
        )
    kept = {column: i for i, column in reversed(list(enumerate(columns)))}  # of columns without a name the first
    rows = []
    for line, cells in records:
        if delimiter == " " and len(cells) > len(columns):
            cells = [*cells[: len(columns) - 1], " ".join(cells[len(columns) - 1 :])]
        if len(cells) > len(columns) and not any(cell.strip() for cell in cells[len(columns) :]):
            cells = cells[: len(columns)]
        if len(cells) != len(columns):
            message = f"must have {len(columns)} cells as the first row has, got {len(cells)}"
            problems.add("wrong number of cells", f"{name} line {line}", message)
            continue
        rows.append(Row(line, {column: cells[kept[column]].strip() for column in columns}))
    return Table(name, tuple(sorted(kept, key=kept.__getitem__)), rows)


def first_row(path: Path, delimiter: str) -> list[str]:
    """Returns the cells of the first row, which may name the columns; raises DataError if the file is missing, empty or not text."""
    records = _best_records(path, delimiter)
    if not records:
        raise DataError(f"{path.name}: is empty; its first row must name the columns")
    return [cell.strip() for cell in records[0][1]]


def find_delimiter(path: Path) -> Delimiter:
    """Returns the character between two cells: what a line `sep=;` says, else what the line with the columns' names has most often.

    Raises DataError if the file is no text.
    """
    counts: dict[Delimiter, int] = {}
    try:
        with path.open(encoding=_encoding(path)) as file:
            while text := file.readline(1 << 16):
                if (declared := _SEPARATOR_LINE.fullmatch(text.rstrip("\r\n"))) is not None and declared[1] in ",;\t|":
                    return declared[1]  # type: ignore[return-value]
                unquoted = re.sub(r'"[^"]*"', "", text)
                counts = {sign: unquoted.count(sign) for sign in (",", ";", "\t", "|")}
                if not text.startswith("#") and text.strip(" ,;\t|\r\n"):
                    break
    except (OSError, UnicodeError) as error:
        why = _not_text(error) if isinstance(error, UnicodeError) else f"cannot be read ({error.strerror})"
        raise DataError(f"{path}: {why}") from error
    # a list in a header's name has a |, too
    usual: list[Delimiter] = [sign for sign in counts if sign != "|" and counts[sign]]
    return max(usual, key=counts.__getitem__) if usual else "|" if counts.get("|") else ","


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _not_text(error: UnicodeError) -> str:
    where = f" at byte {error.start}" if isinstance(error, UnicodeDecodeError) else ""
    reason = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
    return f"is not UTF-8 text ({reason}{where}); save it as UTF-8 (Excel: `CSV UTF-8`; pandas: `to_csv` without `encoding`)"


def _best_records(path: Path, delimiter: str) -> list[Record]:
    """Returns the records as standard CSV; with blanks before quotes (`a, "b, c"`) skipped, if only then all have the same number of cells.

    Raises DataError if the file is missing, or is not text.
    """
    try:
        return _records_of(path, delimiter)
    except FileNotFoundError:
        raise DataError(f"{path}: not found; dataset.file names the CSV inside dataset.root") from None
    except UnicodeError as error:
        raise DataError(f"{path.name}: {_not_text(error)}") from error
    except OSError as error:
        raise DataError(f"{path.name}: cannot be read ({error.strerror})") from error


def _records_of(path: Path, delimiter: str) -> list[Record]:
    records = _cleaned(list(_records(path, delimiter, spaced=False)), delimiter)
    if _is_even(records) and not any(_is_quoted(cell) for _, cells in records for cell in cells):
        return records
    try:
        spaced = _cleaned(list(_records(path, delimiter, spaced=True)), delimiter)
    except DataError:
        return records
    return spaced if _is_even(spaced) else records


def _is_even(records: list[Record]) -> bool:
    return len({len(cells) for _, cells in records}) <= 1


def _is_quoted(cell: str) -> bool:
    text = cell.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _records(path: Path, delimiter: str, spaced: bool) -> Iterator[Record]:
    """Yields records that are not blank, each with the line on which it begins (a quoted cell may span several)."""
    with path.open(encoding=_encoding(path), newline="") as file:
        if delimiter == " ":
            lines = ((line, text.split()) for line, text in enumerate(file, 1) if not text.startswith("#"))
            yield from ((line, cells) for line, cells in lines if cells)
            return
        reader = csv.reader(file, delimiter=delimiter, strict=True, skipinitialspace=spaced)
        line = 1
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise DataError(
                    f"{path.name}, near line {line}: cannot be read ({error}); fix the quotes there"
                ) from error
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1


def _cleaned(records: list[Record], delimiter: str) -> list[Record]:
    """Returns the records without a line `sep=;` at the top and without comments."""
    if records and _SEPARATOR_LINE.fullmatch(delimiter.join(records[0][1])):
        records = records[1:]
    width = max((len(cells) for _, cells in records[:100]), default=0)
    first = next((i for i, (_, cells) in enumerate(records) if not _is_comment(cells, width)), 0)
    return [
        record
        for i, record in enumerate(records)
        if i >= first and not (len(record[1]) == 1 and _is_comment(record[1], width))
    ]


def _is_comment(cells: list[str], width: int) -> bool:
    """Returns whether a record is a comment: it begins with `#`, and has fewer cells than others (a column may be called `#`)."""
    return cells[0].lstrip().startswith("#") and len(cells) < width
