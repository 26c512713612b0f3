"""What a whole study has spent on GPUs so far: all of its searches, from their leases, and all of its other committed results."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shared.artifacts.artifacts import Artifacts
from shared.config.task import STAGES
from shared.search.identity import searches_of
from shared.search.tables import GPU_SECONDS

if TYPE_CHECKING:
    from shared.search.storage import Database

STORE_SECONDS = 60.0  # between two looks at what is committed; the leases are read every time


class Spending:
    """GPU seconds of one study, its searches' lost and running work included.

    Of other stages only what is committed counts, whatever its key: not what is running, nor what `--rerun` forgot.
    """

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        self._database, self._artifacts = database, artifacts
        self._committed, self._looked = 0.0, -float("inf")

    def gpu_seconds(self) -> float:
        """Raises what the store and the database raise."""
        from sqlalchemy import text  # `status` needs the other function only

        if time.monotonic() - self._looked >= STORE_SECONDS:
            self._committed = committed_gpu_seconds(self._artifacts)
            self._looked = time.monotonic()
        with self._database.transaction() as connection:
            searched = connection.scalar(
                text(
                    f"""SELECT coalesce(sum({GPU_SECONDS}), 0) FROM tailfill_leases l JOIN studies s USING (study_id)
                        WHERE split_part(s.study_name, '/', 1) ~ :searches"""
                ),
                {"searches": searches_of(self._artifacts.study)},
            )
        return self._committed + float(searched or 0.0)


def committed_gpu_seconds(artifacts: Artifacts) -> float:
    """Of all results in the store but the searches', which the leases count."""
    return sum(
        manifest.run.device_seconds for stage in STAGES if stage != "tune" for manifest in artifacts.manifests(stage)
    )
