"""Tests what a user sees while stages run."""

from __future__ import annotations

import json

import pytest

from shared.pipeline.console import BarConsole, JsonConsole, PlainConsole

PROGRESS = {
    "time": "t", "level": "info", "name": "finetune", "event": "training",
    "progress": {"done": 400, "total": 1200, "unit": "steps", "rate": 6.1, "seconds_left": 131.2},
}  # fmt: skip
WARNING = {"time": "t", "level": "warning", "name": "prepare", "event": "image left out", "where": "a.csv line 3"}


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainConsole() as console:
        console.line("finetune", PROGRESS)
        console.line("prepare", WARNING)
        console.say("report: committed")
    assert capsys.readouterr().err.splitlines() == [
        "[finetune] training 400/1200 steps, 6.1 steps/s, 2m11s left",
        "[prepare] warning: image left out where=a.csv line 3",
        "report: committed",
    ]


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    JsonConsole().line("finetune", PROGRESS)
    assert json.loads(capsys.readouterr().err) == {**PROGRESS, "stage": "finetune"}


HOSTILE = {
    "time": "t",
    "level": "warning",
    "name": "tune",
    "event": "[/red] :cat:\x1b[2J",
    "reason": "a\x1b]0;x\x07\nb",
}


def test_text_of_others_cannot_command_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for console in (PlainConsole(), BarConsole()):
        with console:
            console.line("tune", HOSTILE)
            console.line("tune [/x]", {**PROGRESS, "event": HOSTILE["event"]})
            console.say("a\nreason \x1b[31m")
            console.finished("tune [/x]")
        err = capsys.readouterr().err
        assert "[tune] warning: [/red] :cat:\\u001b[2J reason=a\\u001b]0;x\\u0007\\u000ab\n" in err.replace("\r", "")
        assert "a\nreason \\u001b[31m\n" in err.replace("\r", "")
        assert "\x1b[2J" not in err
        assert "\x1b]0" not in err
        assert "\x1b[31m" not in err
