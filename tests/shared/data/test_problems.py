from __future__ import annotations

import pytest

from shared.data.problems import SHOWN, Problems
from shared.errors import DataError


def test_fail_names_the_first_and_counts_the_rest() -> None:
    problems = Problems("fail")
    problems.raise_if_failing()
    problems.add("missing file", "labels.csv line 3", "a.png is not there")
    problems.add("truncated", "labels.csv line 2", "b.png was cut short")
    with pytest.raises(DataError) as caught:
        problems.raise_if_failing()
    assert str(caught.value) == (
        "labels.csv line 3: a.png is not there (2 bad in all: missing file 1, truncated 1); fix them, or set dataset.on_bad: "
        "skip to leave them out"
    )


def test_a_file_is_named_once() -> None:
    problems = Problems("skip")
    problems.add("damaged", "cats/a.png", "cats/a.png: cannot be decoded")
    assert problems.lines == ["cats/a.png: cannot be decoded"]


def test_skip_counts_by_reason_and_shows_only_some(caplog: pytest.LogCaptureFixture) -> None:
    problems = Problems("skip")
    for line in range(SHOWN + 5):
        problems.add("missing file", f"labels.csv line {line}", "not there")
    assert len(caplog.messages) == SHOWN
    caplog.clear()
    with caplog.at_level("WARNING", logger="tailfill"):
        problems.raise_if_failing()
    assert problems.counts == {"missing file": SHOWN + 5}
    assert len(problems.lines) == SHOWN
    assert caplog.messages == ["5 more, not shown"]
