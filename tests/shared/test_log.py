from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from pydantic import SecretStr

from shared.log import Log, configure, duration, progress_text


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("tailfill")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)


def test_text_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text")
    Log("finetune").info("checkpoint kept", step=400)
    Log("finetune").warning("retry", attempt=2)
    logging.getLogger("boto3").info("chatter")
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line[9:] for line in err.splitlines()]
    assert lines == ["finetune: checkpoint kept step=400", "finetune: warning: retry attempt=2"]


def test_text_of_others_cannot_command_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure("text")
    try:
        raise ValueError("\x1b]0;title\x07")
    except ValueError:
        logging.getLogger("tailfill.tune").exception(
            "trial\x1b[2J\nfailed \u202e", extra={"values": {"reason": "\x9b31m\r\x00"}}
        )
    err = capsys.readouterr().err
    assert all(line.isprintable() for line in err.splitlines())
    assert "trial\\u001b[2J\\u000afailed \\u202e reason=\\u009b31m\\u000d\\u0000\n" in err
    assert "ValueError: \\u001b]0;title\\u0007" in err


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    Log("tune").error("ended", trial=3, path=SecretStr("hidden"))
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert {key: found[key] for key in ("level", "name", "event", "trial")} == {
        "level": "error", "name": "tune", "event": "ended", "trial": 3,
    }  # fmt: skip
    assert "hidden" not in line


def test_progress_goes_on_from_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    assert list(Log("x").progress(range(4, 10), "training", total=10, done=4)) == list(range(4, 10))
    first, last = (json.loads(line)["progress"] for line in capsys.readouterr().err.splitlines())
    assert (first["done"], first["rate"]) == (4, None)
    assert (last["done"], last["total"], last["seconds_left"]) == (10, 10, 0)


def test_what_has_no_known_end_is_counted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    configure("json")
    now = iter([10.0, 12.0, 14.0, 16.0, 18.0])
    monkeypatch.setattr("shared.log.time.monotonic", lambda: next(now))
    add = Log("x").counter("files listed", "files")
    for _ in range(4):
        add()
    (line,) = capsys.readouterr().err.splitlines()  # the third came six seconds after the start
    progress = json.loads(line)["progress"]
    assert progress == {"done": 3, "total": None, "unit": "files", "rate": 0.5, "seconds_left": None}
    assert progress_text(progress) == "3 files, 0.5 files/s"


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0s"), (59.4, "59s"), (75.4, "1m15s"), (7300, "2h01m")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_in_words() -> None:
    values = {"done": 400, "total": 1200, "unit": "steps", "rate": 6.1, "seconds_left": 131}
    assert progress_text(values) == "400/1200 steps, 6.1 steps/s, 2m11s left"
