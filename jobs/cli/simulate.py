"""`tailfill tune simulate`: the search's machinery with a trivial objective."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from shared.services.services import services
from shared.settings import Settings


def simulate_search(workers: int, trials: int, as_json: bool) -> str:
    """Runs the search's machinery with a trivial objective on a PostgreSQL of its own, or that of DATABASE_URL; returns what it showed."""
    from shared.search.simulate import simulate

    with tempfile.TemporaryDirectory(prefix="tailfill-") as folder:
        environment = {**os.environ, "TAILFILL_STORE": folder}  # no trial keeps anything: no S3 server is needed
        with services(Path(folder), Settings.from_environment(environment)) as started:
            settings = Settings.from_environment({**environment, **started})
            assert settings.database_url is not None
            shown = asdict(simulate(settings.database_url.get_secret_value(), workers, trials))
    return (
        json.dumps(shown)
        if as_json
        else "\n".join(f"{name.replace('_', ' ')}: {value:.6g}" for name, value in shown.items())
    )
