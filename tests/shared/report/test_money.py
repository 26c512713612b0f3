"""Tests the cost in money."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.config.prices import Prices
from shared.report.lineage import LineageEntry
from shared.report.money import UNNAMED_GPU, amount_text, cost_in_money, spent_text

ENTRY = LineageEntry(
    stage="final", roles=["final/real/0"], key="k", digest="d", version=1, inputs={}, created="", device="NVIDIA H100 80GB HBM3", seconds=1.0,
    device_seconds=7200.0, cpu_seconds=0.0, device_lost_seconds=1800.0, cpu_lost_seconds=0.0, code="", libraries={},
)  # fmt: skip
ENTRIES = [
    ENTRY,
    replace(ENTRY, stage="tune", device="NVIDIA A100-SXM4-80GB", device_seconds=3600.0, cpu_seconds=1800.0),
    replace(ENTRY, stage="prepare", device="cpu", device_seconds=0.0, cpu_seconds=3600.0),
]


def test_hours_cost_what_their_device_costs() -> None:
    cost = cost_in_money(ENTRIES, Prices(currency="EUR", per_hour={"h100": 2.5, "A100": 1.5, "cpu": 0.1}))
    assert cost is not None
    assert cost.by_stage == pytest.approx({"final": 5.0, "tune": 1.55, "prepare": 0.1})
    assert cost.total == pytest.approx(6.65)
    assert cost.per_hour == {"NVIDIA H100 80GB HBM3": 2.5, "NVIDIA A100-SXM4-80GB": 1.5, "cpu": 0.1}
    assert (cost.unpriced_hours, cost.gpus_unpriced) == ({}, False)
    assert spent_text(ENTRIES, cost, ["tune", "prepare"], 2.0) == "2.00 GPU-hours + 3.00 CPU-hours (3.30 EUR)"


def test_hours_without_a_price_are_said_apart() -> None:
    cost = cost_in_money(ENTRIES, Prices(currency="EUR", per_hour={"A100": 1.5}))
    assert cost is not None
    assert cost.total == 1.5
    assert cost.unpriced_hours == {"NVIDIA H100 80GB HBM3": 2.0, "cpu": 1.5}
    assert cost.gpus_unpriced
    assert spent_text(ENTRIES, cost, ["final"]) == "2.00 GPU-hours"
    only_cpu = cost_in_money(ENTRIES[2:], Prices(currency="EUR", per_hour={"A100": 1.5}))
    assert only_cpu is not None
    assert not only_cpu.gpus_unpriced
    assert spent_text(ENTRIES, None, ["weights"]) == ""


def test_a_gpu_without_a_name_does_not_cost_as_a_cpu_does() -> None:
    nameless = [replace(ENTRY, device="cpu")]
    cost = cost_in_money(nameless, Prices(currency="EUR", per_hour={"cpu": 0.1}))
    assert cost is not None
    assert (cost.total, cost.unpriced_hours) == (0.0, {UNNAMED_GPU: 2.0})
    assert cost_in_money(ENTRIES, None) is None


@pytest.mark.parametrize(("amount", "text"), [(0, "0"), (0.001, "<0.01"), (12.345, "12.35"), (1234.5, "1,234.50")])
def test_amounts(amount: float, text: str) -> None:
    assert amount_text(amount) == text
