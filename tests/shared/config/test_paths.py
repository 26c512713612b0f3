"""Tests reading and replacing values by path."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from shared.config.paths import value_at, with_parameters
from shared.config.search import Search
from shared.errors import ConfigError


def test_values_are_replaced_by_path() -> None:
    search = with_parameters(Search(), {"budget.gpu_hours": 2.5, "trials": 3})
    assert (value_at(search, "budget.gpu_hours"), search.trials) == (2.5, 3)


def test_an_unknown_path() -> None:
    with pytest.raises(ConfigError, match=r"budget\.euros: there is no such value"):
        with_parameters(Search(), {"budget.euros": 1})


def test_a_value_that_is_not_allowed() -> None:
    with pytest.raises(ValidationError):
        with_parameters(Search(), {"epochs": 0})
