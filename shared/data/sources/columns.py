"""Turns columns of values, such as numbers, names and lists, into labels, for sources whose rows are not text: Parquet files and JSON lines."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.config.dataset import COLUMNS, ColumnGroup
from shared.data.problems import BadImage
from shared.data.schema import LabelGroup, Labels, LabelSchema
from shared.data.source import SplitName
from shared.data.sources.csv_file import listed
from shared.data.sources.infer_labels import (
    LABELS,
    MOST_CLASSES,
    MOST_NAMED_CLASSES,
    MOST_NUMBERS,
    group_name,
    words_of,
)
from shared.data.sources.split_words import is_split_column, split_of
from shared.errors import DataError
from shared.names import shown

NO_LABELS = COLUMNS | {"text", "path", "file_name", "filename", "url", "id", "image_id", "objects"}


@dataclass(frozen=True)
class Columns:
    """Holds the values of one file's rows."""

    name: str
    """Names the file, for errors."""
    values: Mapping[str, Sequence[Any]]
    """Maps each column to its values, all of the same number."""
    names: Mapping[str, Sequence[str]]
    """Maps each column of class numbers to the names of the classes, if the file holds them."""

    def labels(self, groups: Mapping[str, ColumnGroup], schema: LabelSchema, row: int) -> Labels:
        """Returns the labels of a row, `[C]`; raises BadImage for a value that is no class of its group."""
        return np.concatenate(
            [self._of_group(group, schema.group(name).classes, row) for name, group in groups.items()]
        )

    def split(self, column: str, row: int) -> SplitName:
        """Returns the split that a column names; raises BadImage if it is none."""
        text = str(self.values[column][row])
        if (split := split_of(text)) is None:
            raise BadImage("unknown split", f"{column} must be train, val or test, got {shown(text)}")
        return split

    def unit(self, column: str, row: int) -> str | None:
        """Returns the product, the patient and the like of a row, None if it has none."""
        value = self.values[column][row]
        return None if value is None or value == "" else _text(value)

    def classes(self, group: ColumnGroup) -> list[str]:
        """Returns the classes of a group: those that the file names, in order, else those that occur, sorted."""
        if group.column in self.names:
            return list(self.names[group.column])
        return sorted({text for value in self.values[group.column] for text in _texts(value)})

    def texts(self, group: ColumnGroup, value: Any) -> list[str]:
        """Returns the names of the classes that a value of a group has."""
        names = self.names.get(group.column, ())
        numbers = value if isinstance(value, list) else [value]
        if names and all(isinstance(one, int) for one in numbers):
            return [names[one] for one in numbers if 0 <= one < len(names)]
        return _texts(value)

    def _of_group(self, group: ColumnGroup, classes: Sequence[str], row: int) -> Labels:
        value = self.values[group.column][row]
        labels = np.full(len(classes), -1, np.int8)
        if value is None or value in (-1, ""):  # -1 is what `datasets` writes for a label that is not known
            return labels
        if isinstance(value, Mapping):
            for name, carried in value.items():
                labels[self._position(group, classes, name)] = -1 if carried is None else _truth(group, carried)
            return labels
        if isinstance(value, list) != (group.kind == "any"):
            wanted = "a list of classes" if group.kind == "any" else "one class"
            raise BadImage("label outside its group", f"{group.column} must be {wanted}, got {shown(value)}")
        labels[:] = 0
        for one in value if isinstance(value, list) else [value]:
            labels[self._position(group, classes, one)] = 1
        return labels

    def _position(self, group: ColumnGroup, classes: Sequence[str], value: Any) -> int:
        names = self.names.get(group.column)
        text = _text(value)
        if names is not None and isinstance(value, int):
            text = names[value] if 0 <= value < len(names) else text
        if text not in classes:
            raise BadImage(
                "label outside its group", f"{group.column} must be one of {list(classes)[:20]}, got {shown(text)}"
            )
        return classes.index(text)


def label_schema(groups: Mapping[str, ColumnGroup], files: Sequence[Columns]) -> LabelSchema:
    """Returns the classes of all files; raises DataError if files disagree, or if a group has too few classes or one of them twice."""
    return LabelSchema(
        groups=tuple(
            LabelGroup(name=name, kind=group.kind, classes=_classes(group, files)) for name, group in groups.items()
        )
    )


def _classes(group: ColumnGroup, files: Sequence[Columns]) -> tuple[str, ...]:
    named = {tuple(file.names[group.column]) for file in files if group.column in file.names}
    where = f"{files[0].name}: the column {group.column!r}"
    if len(named) > 1 or (named and not all(group.column in file.names for file in files)):
        raise DataError(f"{where} has other class names than another file; they must agree")
    found = named.pop() if named else tuple(sorted({text for file in files for text in file.classes(group)}))
    classes = group.classes or found
    if len(classes) < (2 if group.kind == "one" else 1):
        raise DataError(f"{where} holds the classes {list(classes)}; a group needs two")
    if len(set(classes)) < len(classes):
        raise DataError(f"{where} names a class twice, got {list(classes)[:20]}; each must be named once")
    return classes


def infer_groups(columns: Columns, taken: Collection[str | None]) -> dict[str, ColumnGroup]:
    """Returns a label group for each column that holds class numbers with names, or a few names or numbers that repeat; `taken` are no labels."""
    groups: dict[str, ColumnGroup] = {}
    for column, values in columns.values.items():
        if column in taken or column.lower() in NO_LABELS or is_split_column(column):
            continue
        known = [value for value in values if value is not None and value != ""]
        listed = any(isinstance(value, list | Mapping) for value in known)
        if column in columns.names or _repeat(known, MOST_NAMED_CLASSES if words_of(column) in LABELS else 0):
            groups[group_name(column, groups)] = ColumnGroup(column=column, kind="any" if listed else "one")
    return groups


def without_unused(
    groups: Mapping[str, ColumnGroup], files: Sequence[Columns]
) -> tuple[dict[str, ColumnGroup], list[str]]:
    """Returns the groups, without the classes that files name and no row has, which are errors, and lines that say so."""
    changed, notes = dict(groups), list[str]()
    for name, group in groups.items():
        classes = files[0].names.get(group.column, ())
        used = {text for file in files for value in file.values[group.column] for text in file.texts(group, value)}
        kept = tuple(text for text in classes if text in used)
        if unused := [text for text in classes if text not in used]:
            changed[name] = group.model_copy(update={"classes": kept})
            notes.append(f"{shown(group.column)}: no image is of {listed(unused)}, so these classes are left out")
    return changed, notes


def why_none(columns: Columns, taken: Collection[str | None]) -> str:
    """Returns what to do about the first column that may hold the labels, if none looks like labels; nothing if no column may."""
    for column, values in columns.values.items():
        known = [value for value in values if value is not None and value != ""]
        free = column not in taken and column.lower() not in NO_LABELS - {"id"} and not is_split_column(column)
        if free and _repeat(known, MOST_NAMED_CLASSES):
            return f"; if the {len(set(map(_text, known))):,} different values of {shown(column)} are the classes, call that column `label`"
    return ""


def _repeat(values: Sequence[Any], named: int) -> bool:
    """Returns whether values are few that repeat; of a column that is called as labels are, there may be `named` different ones."""
    if any(isinstance(value, Mapping) for value in values):
        return all(isinstance(value, Mapping) and set(value.values()) <= {0, 1, None} for value in values)
    each = [one for value in values for one in (value if isinstance(value, list) else [value])]
    distinct = {_text(one) for one in each}
    most = named or (MOST_NUMBERS if all(map(_whole, distinct)) else MOST_CLASSES)
    if not all(isinstance(one, str | int) for one in each) or any(_measured(text) for text in distinct):
        return False
    return 2 <= len(distinct) <= min(most, len(each) // 2)


def _whole(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]+", text) is not None


def _measured(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]*\.[0-9]*[1-9][0-9]*(e-?[0-9]+)?", text, re.IGNORECASE) is not None


def _truth(group: ColumnGroup, value: Any) -> int:
    if value in (0, 1):
        return int(value)
    raise BadImage("label outside its group", f"{group.column} must be 0, 1 or null for each class, got {shown(value)}")


def _texts(value: Any) -> list[str]:
    if value is None or value in (-1, ""):
        return []
    return [_text(one) for one in value] if isinstance(value, list | Mapping) else [_text(value)]


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
