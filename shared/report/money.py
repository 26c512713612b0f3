"""Says in money what the results of a report cost, by the study's prices of an hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.config.prices import Prices
from shared.report.lineage import LineageEntry, hours

CPU = "cpu"
"""Names what results record as their device if they were computed without a GPU."""
UNNAMED_GPU = "a GPU whose name was not recorded"


@dataclass
class Cost:
    """Holds the cost of results, in the study's currency."""

    currency: str
    by_stage: dict[str, float] = field(default_factory=dict)
    per_hour: dict[str, float] = field(default_factory=dict)
    """Maps each device that was used and has a price to its price of an hour."""
    unpriced_hours: dict[str, float] = field(default_factory=dict)
    """Maps each device that was used and has no price to its hours, which are not in the cost."""

    @property
    def total(self) -> float:
        """Returns the cost of all stages."""
        return sum(self.by_stage.values())

    @property
    def gpus_unpriced(self) -> bool:
        """Returns whether hours of a GPU have no price, so that the cost is too low."""
        return any(device != CPU for device in self.unpriced_hours)

    def text(self, amount: float) -> str:
        """Returns an amount with the currency: `12.40 EUR`, `<0.01 EUR`."""
        return f"{amount_text(amount)} {self.currency}"

    def add(self, stage: str, device: str, hours: float, price: float | None) -> None:
        """Adds the hours of a device in a stage; those without a price are kept apart."""
        if price is None:
            self.unpriced_hours[device] = self.unpriced_hours.get(device, 0.0) + hours
        else:
            self.per_hour[device] = price
            self.by_stage[stage] = self.by_stage.get(stage, 0.0) + hours * price


def amount_text(amount: float) -> str:
    """Returns an amount of money with two digits: `1,234.50`, `<0.01`, and `0` for nothing."""
    if amount == 0:
        return "0"
    return f"{amount:,.2f}" if amount >= 0.005 else "<0.01"


def cost_in_money(entries: Sequence[LineageEntry], prices: Prices | None) -> Cost | None:
    """Returns the cost of these results, lost hours included; None without prices.

    The hours of all GPUs of a result count as those of the device that it names.
    """
    if prices is None:
        return None
    cost = Cost(prices.currency)
    for entry in entries:
        cost.by_stage.setdefault(entry.stage, 0.0)
        if entry.device_seconds:
            device = UNNAMED_GPU if entry.device == CPU else entry.device
            cost.add(entry.stage, device, entry.device_seconds / 3600, prices.of(device))
        if entry.cpu_seconds:
            cost.add(entry.stage, CPU, entry.cpu_seconds / 3600, prices.of(CPU))
    return cost


def spent_text(entries: Sequence[LineageEntry], cost: Cost | None, stages: Sequence[str], factor: float = 1.0) -> str:
    """Returns the hours of these stages, times a factor, and what they cost if all GPUs have a price: `1.20 GPU-hours (3.00 EUR)`.

    It is empty if they took no time.
    """
    found = [entry for entry in entries if entry.stage in stages]
    gpu, cpu = factor * sum(e.device_seconds for e in found), factor * sum(e.cpu_seconds for e in found)
    if gpu + cpu <= 0:
        return ""
    text = hours(gpu, cpu).replace(" GPU", " GPU-hours").replace(" CPU", " CPU-hours")
    if cost is None or cost.gpus_unpriced:
        return text
    return f"{text} ({cost.text(factor * sum(cost.by_stage.get(stage, 0.0) for stage in stages))})"
