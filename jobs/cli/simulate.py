"""Implements `tailfill tune simulate`: runs a search with a trivial objective."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from shared.services.services import services
from shared.settings import Settings


def simulate_search(workers: int, trials: int, as_json: bool) -> str:
    """Runs a search with a trivial objective on the PostgreSQL of DATABASE_URL, or on one that it starts; returns the measurements."""
    from shared.search.simulate import simulate

    with tempfile.TemporaryDirectory(prefix="tailfill-") as folder:
        environment = {**os.environ, "TAILFILL_STORE": folder}  # trials store nothing, so no S3 server is needed
        with services(Path(folder), Settings.from_environment(environment)) as started:
            settings = Settings.from_environment({**environment, **started})
            assert settings.database_url is not None
            measured = asdict(simulate(settings.database_url.get_secret_value(), workers, trials))
    if as_json:
        return json.dumps(measured)
    return "\n".join(f"{name.replace('_', ' ')}: {value:.6g}" for name, value in measured.items())
