"""Tests the command: what it prints, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.__main__ import main
from tests.support.small_study import SMALL_STUDY

STUDIES = Path(__file__).parents[2] / "studies"


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Returns the exit code and stderr of a command that fails."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert isinstance(end.value.code, int)
    return end.value.code, capsys.readouterr().err


def test_help_imports_nothing_heavy() -> None:
    code = """
import sys
from jobs.__main__ import main
main(["--help"])
heavy = {"pydantic", "numpy", "boto3", "torch", "optuna", "sqlalchemy", "pyarrow", "yaml", "rich"} & set(sys.modules)
assert not heavy, heavy
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Would generated images" in ended.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out.startswith("tailfill, version ")


def test_bad_usage_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = fails(["run"], capsys)
    assert (code, "Missing argument" in text) == (2, True)


def test_a_bad_study_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = fails(["validate", str(SMALL_STUDY), "--set", "training.lrr=1"], capsys)
    assert code == 2
    assert "training.lrr: unknown key; did you mean lr?" in text
    assert "Traceback" not in text
    assert len(text.splitlines()) == 1


def test_errors_are_json_where_logs_are(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = fails(["--log", "json", "validate", "nowhere.yaml"], capsys)
    assert code == 2
    line = json.loads(text)
    assert (line["level"], line["event"].startswith("nowhere.yaml: cannot be read")) == ("error", True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "No such command 'nosuch'"),
        (["run", "--nosuch", "x"], "No such option '--nosuch'"),
        (["run"], "Missing argument 'STUDY.yaml'"),
        (["status", "--set"], "Option '--set' requires an argument"),
        (["run", "x.yaml", "--workers", "none"], "Invalid value for '--workers'"),
    ],
)
def test_bad_usage_is_a_json_line_where_logs_are(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = fails(["--log", "json", *arguments], capsys)
    (line,) = map(json.loads, text.splitlines())
    assert (code, line["level"]) == (2, "error")
    assert said in line["event"]


def test_an_unknown_stage(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = fails(["stage", "finetuning", "--config", "x"], capsys)
    assert code == 2
    assert "there is no such stage; did you mean finetune?" in text


def test_a_task_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "task.json"
    file.write_text('{"study": "x"}')
    code, text = fails(["stage", "prepare", "--config", str(file)], capsys)
    assert code == 2
    assert "stage: Field required" in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", shell])
    assert "_TAILFILL_COMPLETE" in capsys.readouterr().out


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    main(["schema"])
    assert json.loads(capsys.readouterr().out)["title"] == "Study"
