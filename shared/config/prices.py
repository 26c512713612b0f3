"""Defines the section `prices:`, by which the hours that a study uses are also given in money."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, StringConstraints

from shared.config.base import Section

CURRENCY_PATTERN = r"^[A-Z]{3}$"
DEVICE_PATTERN = r"^\w(.*\S)?$"
DeviceName = Annotated[str, StringConstraints(pattern=DEVICE_PATTERN)]


class Prices(Section):
    """Says what an hour of a device costs. Prices are part of no key: a study that costs more is the same study."""

    currency: Annotated[str, StringConstraints(pattern=CURRENCY_PATTERN)]
    """Names the currency by its three capital letters, e.g. `EUR`."""
    per_hour: dict[DeviceName, Annotated[float, Field(ge=0, le=1e6)]] = Field(min_length=1)
    """Gives the price of an hour by the device's name, e.g. `NVIDIA H100 80GB HBM3: 2.5`: of an hour of one GPU, and with `cpu` of an hour of a
    process without a GPU. Some words of a name are enough, in any case: `h100`. If several fit a device, the longest counts."""

    def of(self, device: str) -> float | None:
        """Returns the price of an hour of the device with this name, as results record it; None if no name here fits.

        A name fits if all of it stands in the device's name as whole words: `A10` is no part of `NVIDIA A100-SXM4-80GB`.
        """
        fitting = [name for name in self.per_hour if _whole_words(name, device)]
        return self.per_hour[max(fitting, key=len)] if fitting else None


def _whole_words(part: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", name, re.IGNORECASE) is not None
