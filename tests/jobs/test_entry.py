"""Sends signals to the command at many moments of its start, while it still imports modules."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.early_interrupt import command_of, stopped_line

ROOT = Path(__file__).parents[2]
INSTALLED = str(Path(sys.executable).with_name("tailfill"))
WAYS = {
    "installed": (INSTALLED,),
    "by its module": ("-m", "jobs"),
    "as a stage is": ("-P", str(ROOT / "jobs" / "isolated.py")),
}
LINE = "stopped"
CONTINUES = "stopped; the same command continues from what was committed"
STAGE = ("stage", "finetune", "--config", "/nowhere.json")
MODULES = ("shared.isolation", "click._compat", "click.globals", "click.core", "click", "logging", "shared.log")
"""Names modules that the command imports one after the other; before them Python itself starts, which no program can change."""
STAGE_MODULES = ("click", "pydantic", "shared.config.study", "shared.artifacts.open")
"""Names modules that a stage imports before it does anything."""


def heeded() -> None:
    """Undoes what a shell does to a program in the background: Ctrl-C is ignored there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted(
    arguments: tuple[str, ...],
    at: str,
    *options: str,
    command: tuple[str, ...] = ("validate", "/nowhere.yaml"),
    number: signal.Signals = signal.SIGINT,
) -> tuple[int, list[str]]:
    """Starts the command, sends a signal as soon as Python has imported a module, and returns the exit code and what else is on stderr."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", *arguments, *options, *command],
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


@pytest.mark.parametrize("module", STAGE_MODULES)
def test_a_stage_that_is_told_to_end_while_it_starts_exits_as_one_that_was_stopped(module: str) -> None:
    """Kubernetes would take 2 for a mistake of the user, and 0 for the end of the work."""
    code, said = interrupted(WAYS["installed"], module, command=STAGE, number=signal.SIGTERM)
    assert (code, len(said)) == (143, 1), said
    assert said[0].endswith(f"tailfill: error: {CONTINUES}")


def test_the_first_process_of_a_container_heeds_the_signal(tmp_path: Path) -> None:
    """The kernel drops what the first process of a namespace of its own does not handle."""
    marker = tmp_path / "begun"
    program = f"""
import sys
sys.argv = ["tailfill", *{list(STAGE)!r}]
class Slow:
    def find_spec(self, name, *_):
        if name == "click":
            import pathlib, time
            pathlib.Path({str(marker)!r}).touch()
            time.sleep(20)
sys.meta_path.insert(0, Slow())
from jobs.entry import main
main()
"""
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", program]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)
    while not marker.exists():
        if process.poll() is not None:
            pytest.skip("this machine lets nobody make a namespace")
        time.sleep(0.02)
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGTERM)
    _, said = process.communicate()
    assert (process.returncode, said.endswith(f"tailfill: error: {CONTINUES}\n")) == (143, True), said


def test_only_commands_that_continue_say_so() -> None:
    for words, command, continues in (
        (["run", "study.yaml"], "run", True),
        (["--log", "json", "stage", "tune"], "stage", True),
        (["--log=json", "look", "run"], "look", False),
        (["look", "data"], "look", False),
        (["--log", "run"], "", False),
        ([], "", False),
    ):
        assert (command_of(words), "continues" in stopped_line(words)) == (command, continues)


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
