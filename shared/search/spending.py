"""What a whole study has spent on GPUs so far: all of its searches, from their leases, and all of its other stages, from their results
and from the records of work on results that are not committed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shared.artifacts.artifacts import Artifacts
from shared.config.stages import STAGES, Stage
from shared.search.identity import searches_of
from shared.search.tables import GPU_SECONDS, idle_gpu_seconds
from shared.usage import records_under_way

if TYPE_CHECKING:
    from shared.search.storage import Database

STORE_SECONDS = 60.0  # between two looks at what is in the store; the leases are read every time


class Spending:
    """GPU seconds of one study, lost and running work included, under whatever keys.

    What `--rerun` forgot of other stages than tune does not count.
    """

    def __init__(self, database: Database, artifacts: Artifacts) -> None:
        self._database, self._artifacts = database, artifacts
        self._other_stages, self._looked = 0.0, -float("inf")

    def gpu_seconds(self) -> float:
        """Raises what the store and the database raise."""
        from sqlalchemy import text  # `status` needs the other function only

        if time.monotonic() - self._looked >= STORE_SECONDS:
            self._other_stages = stages_gpu_seconds(self._artifacts)
            self._looked = time.monotonic()
        with self._database.transaction() as connection:
            searched = connection.scalar(
                text(
                    f"""SELECT coalesce(sum({GPU_SECONDS}), 0) + {idle_gpu_seconds("~ :searches")} FROM tailfill_leases l JOIN studies s USING (study_id)
                        WHERE split_part(s.study_name, '/', 1) ~ :searches"""
                ),
                {"searches": searches_of(self._artifacts.study)},
            )
        return self._other_stages + float(searched or 0.0)


def stages_gpu_seconds(artifacts: Artifacts) -> float:
    """Of all stages but tune, whose leases count."""
    return sum(_of_stage(artifacts, stage) for stage in STAGES if stage != "tune")


def _of_stage(artifacts: Artifacts, stage: Stage) -> float:
    # results first: one that is committed between the two looks is left out until the next, and not counted twice
    committed = sum(manifest.run.device_seconds for manifest in artifacts.manifests(stage))
    return committed + sum(record.gpu_seconds for record in records_under_way(artifacts, stage))
