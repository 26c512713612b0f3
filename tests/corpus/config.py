"""Holds study files, `--set` values and files of parameters."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

from jobs.cli.release import read_parameters
from shared.config.load import load_study, study_tree
from tests.corpus.case import Case

STUDY = """\
name: corpus
dataset: {source: garments, resolution: 32}
rare: {below: 20}
finetune: {generator: pixel, resolution: 32}
experiments: [{name: real, images: real}]
verdict: none
"""
CSV = STUDY.replace("{source: garments, resolution: 32}", "{source: csv, root: x, groups: {kind: {column: kind}}}")
Attempt = Callable[[Path], object]


def _study(text: str | bytes, *sets: str) -> Attempt:
    """Returns an attempt that writes a study file and loads it with `--set` values."""

    def attempt(folder: Path) -> object:
        file = folder / "study.yaml"
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return json.dumps(study_tree(load_study(file, sets)), ensure_ascii=False)

    return attempt


def _set(*sets: str) -> Attempt:
    return _study(STUDY, *sets)


def _path(make: Callable[[Path], object]) -> Attempt:
    """Returns an attempt that loads what `make` puts in place of a study file."""

    def attempt(folder: Path) -> object:
        made = make(folder / "study.yaml")
        return load_study(made if isinstance(made, Path) else folder / "study.yaml").name

    return attempt


def _parameters(text: str) -> Attempt:
    def attempt(folder: Path) -> object:
        (folder / "parameters.yaml").write_text(text)
        return read_parameters("parameters.yaml")

    return attempt


def _nowhere(folder: Path) -> Path:
    return folder.parent / "no\x1b[31m\nwhere.yaml"


def _bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)  # the path of a socket has at most 108 characters
        server.bind(path.name)


def _replaced(old: str, new: str, text: str = STUDY) -> Attempt:
    assert old in text
    return _study(text.replace(old, new))


JSON = json.dumps(
    {
        "name": "corpus",
        "dataset": {"source": "csv", "root": "\U0001f600\tx", "groups": {"kind": {"column": "kind"}}},
        "finetune": {"generator": "pixel"},
        "verdict": "none",
        "experiments": [{"name": "real"}],
    },
    indent="\t",
)
LAUGHS = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
MERGES = "m0: &m0 {k: v}\n" + "".join(f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}\n" for n in range(1, 30))
TOO_LARGE = ("with every alias written out", "2097152")
QUOTE = ("quote it if it is text",)

FILES = [
    Case("a small study", _study(STUDY), 0, ("corpus",)),
    Case("a study with a BOM", _study(b"\xef\xbb\xbf" + STUDY.encode()), 0, ("corpus",)),
    Case("a study with CRLF", _study(STUDY.replace("\n", "\r\n")), 0, ("corpus",)),
    Case("a study with a document's marks", _study(f"%YAML 1.1\n---\n{STUDY}...\n"), 0, ("corpus",)),
    Case("a study through a pipe", _path(lambda path: _piped(STUDY)), 0, ("corpus",)),
    Case("UTF-16 with a mark", _study(STUDY.encode("utf-16")), 2, ("not UTF-8", "save it as UTF-8")),
    Case("UTF-16 without a mark", _study(STUDY.encode("utf-16-le")), 2, ("line 1", "#x0000 is not allowed")),
    Case("Latin-1", _study(STUDY.replace("corpus", "caf\u00e9").encode("latin-1")), 2, ("not UTF-8",)),
    Case("a PNG", _study(b"\x89PNG\r\n\x1a\n"), 2, ("not UTF-8",)),
    Case("an empty file", _study(""), 2, ("must be a mapping", "NoneType")),
    Case("comments only", _study("# nothing\n"), 2, ("must be a mapping",)),
    Case("a list", _study("- name: corpus\n"), 2, ("must be a mapping", "got list")),
    Case("a text", _study("name = corpus\n"), 2, ("must be a mapping", "got str")),
    Case("two documents", _study(STUDY + "---\n" + STUDY), 2, ("single document", "line 7")),
    Case("tabs as indentation", _study(STUDY + "search:\n\ttrials: 2\n"), 2, ("line 8", "indent by spaces")),
    Case("an escape character", _replaced("corpus", "cor\x1b[31mpus"), 2, ("line 1", "#x001b is not allowed")),
    Case("an unclosed bracket", _study(STUDY + "final: {seeds: 2\n"), 2, ("line 8", "not valid YAML")),
    Case("an unclosed quote", _study(STUDY + "final: {seeds: '2}\n"), 2, ("not valid YAML", "quoted scalar")),
    Case("50 MB", _path(lambda path: path.write_bytes(b"# " + b"x" * 50_000_000)), 2, ("more than 1048576 bytes", "name a study")),
    Case("a folder", _path(lambda path: path.mkdir()), 2, ("study.yaml: cannot be read (Is a directory)", "name a study file")),
    Case("a named pipe that nobody writes to", _path(os.mkfifo), 2, ("must be a mapping",)),
    Case("a socket", _path(_bound_socket), 2, ("study.yaml: cannot be read", "name a study file")),
    Case("an endless device", _path(lambda _: Path("/dev/zero")), 2, ("/dev/zero: is no file",)),
    Case("an empty device", _path(lambda _: Path("/dev/null")), 2, ("/dev/null: is no file",)),
    Case("a circle of links", _path(lambda path: path.symlink_to(path)), 2, ("cannot be read (Too many levels",)),
    Case("a missing file with a hostile name", _path(_nowhere), 2, ("no\\u001b[31m\\u000awhere.yaml: cannot be read",)),
    Case("a name that is too long", _path(lambda path: path.parent / ("x" * 5000)), 2, ("cannot be read (File name too long)",)),
]  # fmt: skip

TREES = [
    Case("aliases that multiply", _study(STUDY + LAUGHS), 2, TOO_LARGE),
    Case("merge keys that multiply", _study(STUDY + MERGES), 2, TOO_LARGE),
    Case("a long text, often", _study(STUDY + f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1000)}]\n"), 2, TOO_LARGE),
    Case("too many values", _study(STUDY + f"a: [{'1,' * 20_000}]\n"), 2, TOO_LARGE),
    Case("an alias within itself", _study(STUDY + "search: &a {space: *a}\n"), 2, ("alias *a is within",)),
    Case("an alias within itself, by a merge", _study(STUDY + "search: &a {<<: *a}\n"), 2, ("alias *a is within",)),
    Case("an alias without an anchor", _study(STUDY + "search: *a\n"), 2, ("undefined alias 'a'",)),
    Case("the same anchor twice", _study(STUDY + "search: &a {trials: &a 2}\n"), 2, ("duplicate anchor 'a'",)),
    Case("an alias", _study(STUDY + "score: {epochs: &n 7}\nsearch: {epochs: *n}\n"), 0, ('"search": {"epochs": 7}',)),
    Case("a merge", _study(STUDY + "final: &f {epochs: 7}\nsearch: {<<: *f, trials: 3}\n"), 0, ('"search": {"trials": 3, "epochs": 7}',)),
    Case("a merge of no mapping", _study(STUDY + "search: {<<: 3}\n"), 2, ("mapping or list of mappings for merging",)),
    Case(
        "an alias is changed at one place",
        _study(STUDY.replace("images: real}", "search: &s {trials: 3}}, {name: b, search: *s}"), "experiments.b.search.trials=4"),
        0,
        ('{"trials": 3}', '{"trials": 4}'),
    ),
    Case("deep nesting", _study(STUDY + f"search: {'[' * 5000}{']' * 5000}\n"), 2, ("nested more than 40 deep",)),
    Case("deep mappings", _study(STUDY + "".join(f"{' ' * n}a:\n" for n in range(500))), 2, ("nested more than 40 deep",)),
    Case("deep by aliases", _study(STUDY + f"a: &a {'[' * 30}{']' * 30}\nb: {'[' * 30}*a{']' * 30}\n"), 2, ("nested more than 40 deep",)),
    Case("a key twice", _study(STUDY + "name: other\n"), 2, ("line 7: the key 'name' is used twice", "line 1")),
    Case("a merge key twice", _study(STUDY + "final: &f {epochs: 7}\nsearch: {<<: *f, <<: *f}\n"), 2, ("'<<' is used twice",)),
    Case("a list as a key", _study(STUDY + "? [a]\n: b\n"), 2, ("line 7: a key must be text",)),
    Case("a key of 100,000 characters", _study(STUDY + f"? {'k' * 100_000}\n: 1\n"), 2, ("kkk", "unknown key", "line 7")),
    Case("a hostile key", _study(STUDY + '"a\\e[31m\\nb": 1\n'), 2, ('"a\\u001b[31m\\nb": unknown key',)),
    Case("a number as a key", _study(STUDY + "7: 1\n"), 2, ("7: unknown key",)),
    Case("null as a key", _study(STUDY + "~: 1\n"), 2, ("~: unknown key",)),
    Case("on as a key", _study(STUDY + "on: 1\n"), 2, ("on: unknown key",)),
    Case("no as a label group", _replaced("{kind: {", "{no: {", CSV), 0, ('"groups": {"no": ',)),
    Case("zeros before a label group", _replaced("{kind: {", "{'010': {", CSV), 0, ('"groups": {"010": ',)),
]  # fmt: skip

SCALARS = [
    Case("no as a name", _replaced("name: real", "name: no"), 2, ("experiments[0].name: must be a string, got false", *QUOTE, "line 5")),
    Case("on as the study's name", _replaced("corpus", "on"), 2, ("name: must be a string, got true", *QUOTE)),
    Case("no in quotes", _replaced("name: real", "name: 'no'"), 0, ('"name": "no"',)),
    Case("a number as a name", _replaced("corpus", "7"), 2, ("name: must be a string, got 7", *QUOTE)),
    Case("null as a name", _replaced("corpus", "~"), 2, ("name: must be a string, got null",)),
    Case("a class named no", _replaced("column: kind", "column: kind, classes: [a, no]", CSV), 2, ("classes[1]: must be a string, got false", *QUOTE)),
    Case("an equals sign", _replaced("column: kind", "kind: any, column: kind, separator: =", CSV), 0, ('"separator": "="',)),
    Case("an octal number", _study(STUDY + "final: {seeds: 010}\n"), 2, ("line 7", "'010'", "without a zero", *QUOTE)),
    Case("a sexagesimal number", _study(STUDY + "search: {budget: {wall_hours: 1:30}}\n"), 2, ("line 7", "'1:30'", *QUOTE)),
    Case("underscores in a number", _study(STUDY + "final: {epochs: 1_000}\n"), 0, ('"epochs": 1000',)),
    Case("a hexadecimal number", _study(STUDY + "final: {epochs: 0x10}\n"), 0, ('"epochs": 16',)),
    Case("an exponent", _study(STUDY + "training: {lr: 1e-05}\n"), 0, ('"lr": 1e-05',)),
    Case("10,000 digits", _study(STUDY + f"seed: {'9' * 10_000}\n"), 2, ("line 7", "10000 characters")),
    Case("10,000 hexadecimal digits", _study(STUDY + f"seed: 0x{'f' * 10_000}\n"), 2, ("line 7", "10002 characters")),
    Case("90 digits", _study(STUDY + f"seed: {'9' * 90}\n"), 2, ("seed: must be a whole number below 2^63", "line 7")),
    Case("the largest seed", _study(STUDY + f"seed: {2**63 - 1}\n"), 0, (f'"seed": {2**63 - 1}',)),
    Case("2^63 as a size", _study(STUDY + f"training: {{batch_size: {2**63}}}\n"), 2, ("training.batch_size: must be a whole number",)),
    Case("1e999", _study(STUDY + "training: {lr: 1e999}\n"), 2, ("training.lr: must be a finite number", "got inf", "line 7")),
    Case("NaN", _study(STUDY + "training: {lr: .nan}\n"), 2, ("training.lr: must be a finite number", "got nan")),
    Case("minus infinity", _study(STUDY + "training: {lr: -.inf}\n"), 2, ("training.lr: must be a finite number", "got -inf")),
    Case("a date", _replaced("name: real", "name: 2026-01-01"), 2, ("experiments[0].name", "quote dates")),
    Case("a time", _study(STUDY + "seed: 2026-01-01 12:00:00\n"), 2, ("seed: must be", "quote dates")),
    Case("an impossible date", _study(STUDY + "seed: 2026-13-45\n"), 2, ("not valid YAML (month must be",)),
    Case("a million repetitions", _study(STUDY + "final: {seeds: 1000000000}\n"), 2, ("final.seeds: must be <=", "line 7")),
    Case("a text of 500,000 characters", _replaced("corpus", "x" * 500_000), 2, ("name: must be 1 to 40", "line 1")),
    *[
        Case(f"the tag {tag} of {value}", _study(f"{STUDY}seed: {tag} {value}\n"), 2, ("not valid YAML", "line 7"))
        for tag, value in [
            ("!!python/object/apply:os.system", "['touch x']"), ("!!python/name:os.system", "''"), ("!!python/tuple", "[1]"),
            ("!!binary", "aGk="), ("!!set", "{a, b}"), ("!!omap", "[a: 1]"), ("!!pairs", "[a: 1]"), ("!own", "1"), ("!a%0Ab", "1"),
            ("!!int", "x"), ("!!int", "''"), ("!!float", "''"), ("!!bool", "maybe"), ("!!timestamp", "x"), ("!!map", "[1]"), ("!!seq", "{a: 1}"),
            ("!!merge", "x"),
        ]
    ],
    Case("the tag of a text", _replaced("corpus", "!!str 7"), 0, ('"name": "7"',)),
]  # fmt: skip

NAMES = [
    *[
        Case(f"the name {name[:50]!r}", _set(f"name={json.dumps(name)}"), 2, ("name: must be 1 to 40",))
        for name in [
            "../../etc", "a/b", "a\\b", "a\nb", "a\x00b", "\x1b[31m", "caf\u00e9", "A", "-a", "a-", "", " ", "x" * 41, "x" * 100_000, "a\u202eb",
            "${HOME}", "$(id)", "=1+1", "<script>", "%s", "a\n",
        ]
    ],
    Case("an experiment with a hostile name", _set('experiments.0.name="\\e]0;x\\a"'), 2, ("experiments[0].name: must be 1 to 40", "\\u001b]0;x")),
    Case("half a character", _set('experiments.0.title="\\ud800"'), 2, ("half a character",)),
    Case("two experiments of one name", _set("experiments=[{name: a}, {name: a}]"), 2, ("the name 'a' is used twice",)),
    Case("an experiment without a name", _set("experiments=[{images: real}]"), 2, ("experiments[0].name: is required",)),
    Case("no experiment", _set("experiments=[]"), 2, ("experiments: must have at least 1 entry",)),
    Case("an experiment that is no mapping", _set("experiments=[real]"), 2, ("experiments[0]: must be a mapping",)),
]  # fmt: skip

SETS = [
    Case("a value", _set("final.epochs=7"), 0, ('"epochs": 7',)),
    Case("an empty value", _set("experiments.0.title="), 0, ('"title": ""',)),
    Case("a value with equals signs", _set("experiments.0.title=a=b"), 0, ('"title": "a=b"',)),
    Case("no equals sign", _set("final.epochs"), 2, ("--set final.epochs: must be path.to.key=value",)),
    Case("no path", _set("=7"), 2, ("must be path.to.key=value",)),
    Case("an empty part", _set("final..epochs=7"), 2, ("must be path.to.key=value",)),
    Case("aliases in a value", _set("search=[" + LAUGHS.replace("\n", ", ").replace("a0: ", "", 1).replace(": &", ": &") + "]"), 2, TOO_LARGE),
    Case("an endless value", _set("training=&a [*a]"), 2, ("alias *a is within",)),
    Case("a value that is no YAML", _set("final.epochs=]"), 2, ("--set final.epochs=]: not valid YAML",)),
    Case("a value with a tag", _set("final.epochs=!!python/name:os.system ''"), 2, ("not valid YAML", "the tag")),
    Case("a value of 10,000 digits", _set(f"seed={'9' * 10_000}"), 2, ("--set seed=999", "10000 characters")),
    Case("a value that is an impossible date", _set("seed=2026-13-45"), 2, ("--set seed=2026-13-45: not valid YAML",)),
    Case("an octal value", _set("final.epochs=010"), 2, ("'010'", *QUOTE)),
    Case("no as a value", _set("experiments.0.name=no"), 2, ("must be a string, got false", *QUOTE)),
    Case("deep values", _set(f"search={'[' * 5000}"), 2, ("nested more than 40 deep",)),
    Case("a deep path", _set(f"{'a.' * 5000}a=1"), 2, ("nested more than 40 deep",)),
    Case("an index of 5,000 digits", _set(f"experiments.{'9' * 5000}.name=a"), 2, ("is not an element of the list",)),
    Case("an index that is no digit of ours", _set("experiments.\u00b2.name=a"), 2, ("is not an element of the list",)),
    Case("a hostile path", _set("a\x1b[31m\nb=1"), 2, ("--set a\\u001b[31m\\u000ab=1", "unknown key")),
    Case("a path that is no UTF-8", _set(os.fsdecode(b"a\xff=1")), 2, ("--set a\\udcff=1: is not UTF-8",)),
    Case("a value that is no UTF-8", _set(os.fsdecode(b"experiments.0.title=\xff")), 2, ("is not UTF-8",)),
    Case("a value of 100,000 characters", _set(f"name={'x' * 100_000}"), 2, ("name: must be 1 to 40", "--set name=xxx")),
    Case("a path through a value", _set("name.first=x"), 2, ("name is a plain value",)),
    Case("a path through a method", _set("name.__class__=x"), 2, ("name is a plain value",)),
]  # fmt: skip

PRICES = [
    Case("prices", _set("prices={currency: EUR, per_hour: {H100: 3, cpu: 0.04}}"), 0, ('"H100": 3.0', '"cpu": 0.04')),
    Case("prices without a currency", _set("prices={per_hour: {H100: 3}}"), 2, ("prices.currency",)),
    Case("a currency by its sign", _set("prices={currency: $, per_hour: {H100: 3}}"), 2, ("prices.currency", "three capital letters", '"$"')),
    Case("prices of nothing", _set("prices={currency: EUR, per_hour: {}}"), 2, ("prices.per_hour", "at least 1")),
    Case("a price below 0", _set("prices={currency: EUR, per_hour: {H100: -3}}"), 2, ("prices.per_hour.H100", "-3")),
    Case("a price without an end", _set("prices={currency: EUR, per_hour: {H100: .inf}}"), 2, ("prices.per_hour.H100", "finite")),
    Case("a price of everything", _set("prices={currency: EUR, per_hour: {H100: 1.0e+300}}"), 2, ("prices.per_hour.H100", "<= 1e+06")),
    Case("a price in words", _set("prices={currency: EUR, per_hour: {H100: 3 EUR}}"), 2, ("prices.per_hour.H100", "must be a number", '"3 EUR"')),
    Case("a price of any device", _set("prices={currency: EUR, per_hour: {'': 3}}"), 2, ("prices.per_hour.", "the name of a device")),
    Case("a device with spaces around it", _set("prices={currency: EUR, per_hour: {' H100': 3}}"), 2, ("prices.per_hour. H100", "without spaces")),
    Case("a device that is a number", _set("prices={currency: EUR, per_hour: {4090: 3}}"), 0, ('"4090": 3.0',)),
    Case("a price alone", _set("prices=3"), 2, ("prices", "mapping")),
    Case("prices of an experiment", _set("experiments.real.prices={currency: EUR}"), 2, ("prices", "one for the whole study")),
]  # fmt: skip

OTHERS = [
    Case("a study in JSON, indented by tabs", _study(JSON), 0, ("\U0001f600\\tx",)),
    Case("JSON with half a character", _study(JSON.replace("\\ude00", "")), 2, ("half a character",)),
    Case("JSON with a key twice", _study(JSON.replace('"finetune"', '"name": "b", "finetune"')), 2, ("'name' is used twice",)),
    Case("JSON with NaN", _study(JSON.replace('"none"', "NaN")), 2, ("verdict",)),
    Case("JSON with a comma too many", _study(JSON.replace("\t", " ").replace("]\n}", "],\n}")), 0, ("corpus",)),
    Case("parameters", _parameters("training.lr: 0.001\n"), 0, ("0.001",)),
    Case("parameters that multiply", _parameters(LAUGHS), 2, TOO_LARGE),
    Case("parameters that are a list", _parameters("[1]"), 2, ("--params", "must be a mapping of paths")),
    Case("no parameters", _parameters(""), 2, ("--params", "must be a mapping of paths to values")),
    Case("parameters with a tag", _parameters("training.lr: !!python/name:os.system ''\n"), 2, ("--params", "the tag")),
    Case("parameters in a folder", lambda folder: read_parameters(str(folder)), 2, ("--params", "Is a directory", "give `best`")),
    Case("parameters of a device", lambda folder: read_parameters("/dev/zero"), 2, ("--params", "is no file")),
    Case("parameters nowhere", lambda folder: read_parameters("nowhere\x1b[31m"), 2, ("--params", "nowhere\\u001b[31m")),
    Case("parameters on the command line that are no JSON", lambda folder: read_parameters("{"), 2, ("--params", "not valid YAML")),
]  # fmt: skip


def _piped(text: str) -> Path:
    """Returns the path of a pipe with that text, as a shell's `<(…)` has one."""
    read, write = os.pipe()
    os.write(write, text.encode())
    os.close(write)
    return Path(f"/proc/self/fd/{read}")


CASES = [*FILES, *TREES, *SCALARS, *NAMES, *SETS, *PRICES, *OTHERS]
