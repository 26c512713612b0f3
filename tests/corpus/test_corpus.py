"""Tries every bad or odd input of the corpus in this process."""

from __future__ import annotations

import importlib
import logging
import pkgutil
from pathlib import Path

import pytest

from shared.errors import COMMITTED
from tests import corpus
from tests.corpus.case import LONGEST, PLANTED, Case, outcome

KINDS = [m.name for m in pkgutil.iter_modules(corpus.__path__) if not m.name.startswith("test_") and m.name != "case"]


def _cases(kind: str) -> list[Case]:
    cases: list[Case] = importlib.import_module(f"tests.corpus.{kind}").CASES
    return cases


ALL = [(kind, case) for kind in KINDS for case in _cases(kind)]


@pytest.mark.parametrize(("kind", "case"), ALL, ids=[f"{kind}:{case.name}" for kind, case in ALL])
def test_an_input_ends_as_it_should(
    kind: str, case: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tailfill"):
        result = outcome(case, tmp_path)
    logged = [f"{record.getMessage()} {getattr(record, 'values', '')}" for record in caplog.records]
    for where, shown in {
        "output": "".join(capfd.readouterr()),
        "log": "\n".join(logged),
        "cause": result.causes,
    }.items():
        assert PLANTED not in shown, f"{case.name}: the planted secret is in its {where}"
    assert result.exit_code == case.exit_code, f"{case.name}: exit {result.exit_code}: {result.text}"
    for words in case.says:
        assert words in result.text, f"{case.name}: {words!r} is not in {result.text!r}"
    for words in case.never:
        assert words not in result.text, f"{case.name}: {words!r} is in {result.text!r}"
    if case.exit_code != COMMITTED:
        assert len(result.text.strip().splitlines()) == 1, f"{case.name}: a message is one line"
        assert len(result.text) <= LONGEST, f"{case.name}: a message of {len(result.text)} characters"


def test_the_names_of_a_kind_differ() -> None:
    names = [f"{kind}:{case.name}" for kind, case in ALL]
    assert len(names) == len(set(names))
