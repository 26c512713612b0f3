"""Tests what a user sees while stages run."""

from __future__ import annotations

import json

import pytest

from shared.pipeline.console import JsonConsole, PlainConsole

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
