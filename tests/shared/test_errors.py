from __future__ import annotations

import pytest

from shared import errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ConfigError, 2),
        (errors.DataError, 2),
        (errors.ArtifactError, 2),
        (errors.InputError, 2),
        (errors.UnavailableError, 75),
        (errors.Stopped, 143),
        (errors.TailfillError, 1),
    ],
)
def test_exit_codes_are_a_contract(kind: type[errors.TailfillError], code: int) -> None:
    assert kind.exit_code == code
    assert issubclass(kind, errors.TailfillError)
    assert (kind.exit_code == 2) == issubclass(kind, errors.InputError)
