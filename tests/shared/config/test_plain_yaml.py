"""Tests that YAML of a stranger costs little time and memory. `tests/corpus/config.py` has the single faults and their messages."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.config.load import load_study
from shared.config.plain_yaml import MAX_BYTES, parse_value
from shared.errors import ConfigError
from tests.corpus.config import LAUGHS, MERGES, STUDY

MEMORY = 300_000_000  # bytes, of which an interpreter with the study's model and pytest has 100 million
HOSTILE = {
    "aliases": LAUGHS,
    "merges": MERGES,
    "texts": f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 9999)}]\n",
    "values": f"a: [{'b, ' * (MAX_BYTES // 3 - 100)}]\n",
    "digits": f"seed: {'9' * 150_000}\n",
    "base 60": f"seed: 1{':59' * 50_000}\n",
    "depth": "[" * 150_000,
    "a quote": f"a: '{'x' * 150_000}",
    "keys": "".join(f"k{n}: 1\n" for n in range(5_000)),
    "one long key": f"? {'k' * 150_000}\n: 1\n",
}


def load_all(folder: Path) -> None:
    """Loads every hostile study with little memory, and prints the seconds of computing that each took."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    for name, text in HOSTILE.items():
        (folder / "study.yaml").write_text(STUDY + text)
        start = time.process_time()
        with pytest.raises(ConfigError) as caught:
            load_study(folder / "study.yaml")
        assert len(str(caught.value)) < 20_000
        print(name, time.process_time() - start)


def test_hostile_studies_cost_little(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from tests.shared.config.test_plain_yaml import load_all; load_all(Path({str(tmp_path)!r}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert ran.returncode == 0, ran.stderr
    seconds = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in ran.stdout.splitlines()}
    assert seconds.keys() == HOSTILE.keys()
    assert max(seconds.values()) < 12, seconds  # 2 s on an idle core


def test_numbers_of_both_versions_of_yaml_are_read() -> None:
    text = "[0, -1, +7, 1_000, 0x1F, 0b101, 1e3, -.5, 5., true, No, ~, '010', 0o17, 08]"
    assert parse_value(text, "x")[0] == [0, -1, 7, 1000, 31, 5, 1e3, -0.5, 5.0, True, False, None, "010", "0o17", 8.0]


@pytest.mark.parametrize("text", ["010", "-07", "1:30", "190:20:30", "0b_", "0x_", "00"])
def test_numbers_that_the_versions_of_yaml_read_differently_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a whole number in every version of YAML.* quote it if it is text"):
        parse_value(text, "x")


def test_a_merge_keeps_what_is_written_beside_it() -> None:
    tree, _ = parse_value("a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: [*b, *a], z: 4}\n", "x")
    assert tree["b"] == {"x": 1, "y": 3}
    assert tree["c"] == {"x": 1, "y": 3, "z": 4}
    assert tree["a"] == {"x": 1, "y": 2}
