"""Interrupts the command at many moments of its start, while it still imports modules."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.early_interrupt import LINE

ROOT = Path(__file__).parents[2]
INSTALLED = str(Path(sys.executable).with_name("tailfill"))
WAYS = {
    "installed": (INSTALLED,),
    "by its module": ("-m", "jobs"),
    "as a stage is": ("-P", str(ROOT / "jobs" / "isolated.py")),
}
MODULES = ("shared.isolation", "click._compat", "click.globals", "click.core", "click", "logging", "shared.log")
"""Names modules that the command imports one after the other; before them Python itself starts, which no program can change."""


def heeded() -> None:
    """Undoes what a shell does to a program in the background: Ctrl-C is ignored there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted(
    arguments: tuple[str, ...], at: str, *options: str, number: signal.Signals = signal.SIGINT
) -> tuple[int, list[str]]:
    """Starts the command, sends a signal as soon as Python has imported a module, and returns the exit code and what else is on stderr."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", *arguments, *options, "validate", "/nowhere.yaml"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeded,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        if LINE in line or (line.strip() and not line.startswith("import time:")):
            said.append(line.rstrip())
        elif line.rpartition("|")[2].strip() == at:
            process.send_signal(number)
    process.stderr.close()
    return process.wait(), said


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_while_it_imports_ends_it_by_one_line(way: str, module: str) -> None:
    code, said = interrupted(WAYS[way], module)
    assert (code, len(said)) == (143, 1), said
    assert said[0].endswith(f"tailfill: error: {LINE}")


@pytest.mark.parametrize("way", WAYS)
def test_sigterm_while_it_imports_ends_it_by_one_line(way: str) -> None:
    code, said = interrupted(WAYS[way], "click.core", number=signal.SIGTERM)
    assert (code, len(said)) == (143, 1), said


@pytest.mark.parametrize("option", [("--log", "json"), ("--log=json",)])
def test_the_line_has_the_form_of_the_log(option: tuple[str, ...]) -> None:
    code, said = interrupted(WAYS["as a stage is"], "click", *option)
    line = json.loads(said[0])
    assert (code, len(said), line["level"], line["event"]) == (143, 1, "error", LINE)


def test_an_interrupt_that_is_ignored_stays_ignored() -> None:
    shell = f"trap '' INT; exec {sys.executable} {INSTALLED} --version"
    process = subprocess.Popen(["/bin/sh", "-c", shell], stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE)
    for _ in range(20):
        time.sleep(0.02)
        process.send_signal(signal.SIGINT)
    out, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert out.startswith("tailfill, version")
