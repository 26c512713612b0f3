"""Tests which price a device has, and that prices change no key."""

from __future__ import annotations

import pytest

from shared.artifacts.keys import keyed
from shared.config.load import load_study
from shared.config.prices import Prices
from shared.pipeline.plan import plan
from tests.support.small_study import SMALL_STUDY

PRICES = Prices(
    currency="EUR", per_hour={"H100": 2.5, "a100": 1.5, "A10": 0.5, "NVIDIA A100 80GB PCIe": 1.75, "cpu": 0.04}
)


@pytest.mark.parametrize(
    ("device", "price"),
    [
        ("NVIDIA H100 80GB HBM3", 2.5),
        ("NVIDIA A100-SXM4-80GB", 1.5),  # not that of the A10, whose name is a part of it
        ("NVIDIA A100 80GB PCIe", 1.75),  # the longest that fits
        ("NVIDIA A10", 0.5),
        ("NVIDIA A10G", None),
        ("NVIDIA GH100", None),
        ("cpu", 0.04),
    ],
)
def test_a_device_has_the_price_of_the_longest_name_that_fits(device: str, price: float | None) -> None:
    assert PRICES.of(device) == price


def test_prices_reach_the_report_and_change_no_key() -> None:
    without, priced = (
        load_study(SMALL_STUDY, sets) for sets in ([], ["prices={currency: EUR, per_hour: {H100: 2.5}}"])
    )
    report = plan(priced)[-1]
    assert getattr(report.config, "prices") == Prices(currency="EUR", per_hour={"H100": 2.5})  # noqa: B009
    assert "prices" not in keyed("report", report.config)
    assert [step.id for step in plan(priced)] == [step.id for step in plan(without)]
