"""Reads YAML, of which JSON is a part, into plain values. Whoever wrote it can cost us neither much time nor much memory.

Plain values are strings, numbers, true, false, null, lists and mappings; dates are read too, so that the study can say where one is.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import stat
from typing import Any

import yaml

from shared.config.explain import Path
from shared.errors import ConfigError
from shared.terminal import shortened

Place = str
"""Says where a value was written: `study.yaml line 12`, or `--set training.lr=1`."""

MAX_BYTES = 1 << 20  # a ConfigMap, in which a cluster keeps a study, holds no more
MAX_SIZE = 2 << 20  # characters of all values, with every alias written out
VALUE_SIZE = 128  # what a value counts beside its characters: so there are at most 16,384
MAX_DEPTH = 40
MAX_DIGITS = 100
NAME_LENGTH = 200  # of a file or setting in a message

YAML_TAG = "tag:yaml.org,2002:"
FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$")
INT = re.compile(r"^[-+]?(0|[1-9][0-9_]*|0b[01_]*[01]|0x[0-9a-fA-F_]*[0-9a-fA-F])$")
BOOL = re.compile(r"^(yes|no|true|false|on|off)$", re.IGNORECASE)
FORMS = {
    "float": (FLOAT, "a number", "write it in decimal digits"),
    "int": (INT, "a whole number", "write it in decimal digits without a zero before them"),
    "bool": (BOOL, "true or false", "write true or false"),
    "timestamp": (yaml.SafeLoader.timestamp_regexp, "a date", "write it as 2026-01-31"),
}
TAGS = {yaml.ScalarNode: {"null", "str", "merge", *FORMS}, yaml.SequenceNode: {"seq"}, yaml.MappingNode: {"map"}}  # fmt: skip


def read_text(path: pathlib.Path, name: str, remedy: str) -> str:
    """Returns the text of a file or pipe; raises ConfigError if it cannot be read or is too large.

    `name` is what errors call the file, and `remedy` is their end.
    """
    name = shortened(name, NAME_LENGTH)
    try:
        # without waiting: a pipe may have nobody who writes to it
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                raise ConfigError(f"{name}: is no file; {remedy}")
            os.set_blocking(file.fileno(), True)
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{name}: cannot be read ({reason}); {remedy}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{name}: has more than {MAX_BYTES} bytes; {remedy}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: cannot be read (not UTF-8 text); save it as UTF-8, or {remedy}") from error


def parse(text: str, name: str) -> tuple[dict[str, Any], dict[Path, Place]]:
    """Returns a YAML text as plain values, and the place of each path; raises ConfigError if it is not YAML or no mapping.

    `name` is what errors and places call the text.
    """
    tree, places = parse_value(text, name)
    if not isinstance(tree, dict):
        raise ConfigError(
            f"{shortened(name, NAME_LENGTH)}: must be a mapping with name, dataset, finetune and experiments, got {type(tree).__name__}"
        )
    return tree, places


def parse_value(text: str, name: str) -> tuple[Any, dict[Path, Place]]:
    """Returns a YAML text as a plain value, and the place of each path in it; raises ConfigError if it is not YAML."""
    name = shortened(name, NAME_LENGTH)
    try:
        loader = _Loader(_without_tabs(text))
        try:
            root = loader.get_single_node()
            places: dict[Path, Place] = {}
            if root is not None:
                _note_places(root, (), name, places)
            return _unshared(loader.construct_document(root)) if root is not None else None, places
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError) as error:
        line, problem = _problem(error, text)
        place = f"{name} line {line}" if line and "\n" in text else name
        raise ConfigError(f"{place}: not valid YAML ({shortened(problem, 400)})") from error


class _Loader(yaml.SafeLoader):
    """Loads YAML with the numbers of YAML 1.2: `1e-05` is one, while PyYAML's 1.1 reads a string.

    What the two versions read as different numbers is refused. A key is the text that was written: `no` is not false.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._size = 0
        self._sizes = dict[str, int]()
        """Holds the sizes of what has an anchor, each when it is complete."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> Any:
        """Composes a node; raises YAMLError if it makes the tree too deep or too large, or is within itself."""
        node: Any
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if event.anchor not in self._sizes:
                raise _Refused(
                    f"the alias *{event.anchor} is within what it stands for, which would be nested more than {MAX_DEPTH} deep",
                    event,
                )
            self._count(self._sizes[event.anchor], event)
            return node
        if self._depth > MAX_DEPTH:
            raise _Refused(f"nested more than {MAX_DEPTH} deep", event)
        before = self._size
        self._count(VALUE_SIZE + len(event.value if isinstance(event, yaml.ScalarEvent) else ""), event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None:
            self._sizes[event.anchor] = self._size - before
        _check_kind(node)
        if isinstance(node, yaml.ScalarNode):
            node.value = _whole_characters(node)
        return node

    def _count(self, size: int, event: yaml.Event) -> None:
        self._size += size
        if self._size > MAX_SIZE:
            raise _Refused(
                f"too large: with every alias written out it has more than {MAX_SIZE} characters, {VALUE_SIZE} per value included",
                event,
            )

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Returns a mapping whose keys are texts."""
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=deep) for key, value in node.value}


# `=` alone is a type of YAML 1.1 that PyYAML cannot construct: here it is text
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (f"{YAML_TAG}float", f"{YAML_TAG}value")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(f"{YAML_TAG}float", FLOAT, list("-+0123456789."))


class _Refused(yaml.MarkedYAMLError):
    """Says why a part of a YAML text is refused, and where it is."""

    def __init__(self, problem: str, place: yaml.Event | yaml.Node) -> None:
        mark: Any = place.start_mark
        super().__init__(problem=problem, problem_mark=mark)


def _check_kind(node: yaml.Node) -> None:
    """Raises YAMLError for a value of a type that is not plain, or whose text is not of its type."""
    kind = node.tag.removeprefix(YAML_TAG)
    if kind not in TAGS[type(node)]:
        raise _Refused(f"the tag {node.tag!r} is none that a study may have; remove it", node)
    if kind not in FORMS:
        return
    pattern, what, remedy = FORMS[kind]
    if len(node.value) > MAX_DIGITS:
        raise _Refused(f"{what} of {len(node.value)} characters; {remedy}, or quote it if it is text", node)
    if not pattern.fullmatch(node.value):
        raise _Refused(
            f"{node.value!r} is not {what} in every version of YAML; {remedy}, or quote it if it is text", node
        )


def _whole_characters(node: yaml.ScalarNode) -> str:
    """Returns the text of a node with JSON's `\\ud83d\\ude00` as the one character that it stands for; raises YAMLError for half of one."""
    try:
        text: str = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise _Refused(f"the text {node.value!r} has half a character; remove it", node) from None
    return text


def _note_places(node: yaml.Node, path: Path, name: str, places: dict[Path, Place]) -> None:
    if len(path) > MAX_DEPTH:
        raise ConfigError(f"{name} line {node.start_mark.line + 1}: nested more than {MAX_DEPTH} deep")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{name} line {line}: a key must be text, got a list or a mapping")
            inner = (*path, key.value)
            if inner in places:
                raise ConfigError(
                    f"{name} line {line}: the key {shortened(repr(key.value), 80)} is used twice (first in {places[inner]}); keep one"
                )
            places[inner] = f"{name} line {line}"
            _note_places(value, inner, name, places)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            places[(*path, index)] = f"{name} line {value.start_mark.line + 1}"
            _note_places(value, (*path, index), name, places)


def _unshared(value: Any) -> Any:
    """Returns a value in which no part stands for another, so that `--set` changes one place and not all that an alias names."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


def _without_tabs(text: str) -> str:
    """Returns a JSON text with spaces in place of the tabs between its values, which PyYAML does not read; other texts are unchanged."""
    if "\t" not in text or not text.lstrip().startswith(("{", "[")):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return re.sub(r'("(?:[^"\\]|\\.)*")|\t', lambda found: found[1] or " ", text)


def _problem(error: Exception, text: str) -> tuple[int | None, str]:
    """Returns the line, counted from 1, and the reason of an error of PyYAML."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(filter(None, (error.context, error.problem)))
        if "'\\t'" in problem:
            problem += "; indent by spaces"
        return None if mark is None else mark.line + 1, problem
    if isinstance(error, yaml.reader.ReaderError):
        return text.count("\n", 0, error.position) + 1, f"the character #x{error.character:04x} is not allowed"
    return None, str(error)
