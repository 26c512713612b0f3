"""What a person's machine makes of a command in the control Pod. That the Pod answers is seen on a cluster: `tests/cluster`."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import release
from shared.errors import InputError, TailfillError, UnavailableError


@pytest.mark.parametrize(("code", "error"), [(75, UnavailableError), (2, InputError)])
def test_a_report_that_cannot_be_fetched_keeps_what_a_script_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[TailfillError]
) -> None:
    monkeypatch.setattr(release, "run_in_control", lambda *_: code)
    with pytest.raises(error, match="release study: ") as caught:
        release.fetch("study", None, tmp_path / "report")
    assert caught.value.exit_code == code
    assert not (tmp_path / "report").exists()
