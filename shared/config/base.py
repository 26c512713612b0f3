"""Defines the base class of every section of a study."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Serves as the base of every section of a study file. Unknown keys and wrong types are errors, and its values never change."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)
