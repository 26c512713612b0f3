"""Points huggingface_hub at a stand-in of the hub."""

from __future__ import annotations

import pytest


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the effect of HF_ENDPOINT on a process that starts with it."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
