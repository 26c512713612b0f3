"""Counts the GPU seconds that a whole study has spent so far.

Its searches are counted by their leases, its other stages by their results and, if these are not committed yet, by the records
of the work on them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from shared.artifacts.artifacts import Artifacts
from shared.config.stages import STAGES, Stage
from shared.search import statements
from shared.search.identity import searches_of
from shared.usage import records_under_way

if TYPE_CHECKING:
    from shared.search.storage import Database

STORE_SECONDS = 60.0  # between two readings of the store; the leases are read every time


class Spending:
    """Counts the GPU seconds of one study under any keys, including lost and running work.

    Work on results that `--rerun` removed does not count, except that of searches.
    """

    def __init__(self, database: Database, artifacts: Artifacts, clock: Callable[[], float] = time.monotonic) -> None:
        self._database, self._artifacts, self._clock = database, artifacts, clock
        self._other_stages, self._looked = 0.0, -float("inf")

    def gpu_seconds(self) -> float:
        """Returns the GPU seconds of the whole study; raises what the store and the database raise."""
        from sqlalchemy import text  # `status` needs only the other function

        if self._clock() - self._looked >= STORE_SECONDS:
            self._other_stages = stages_gpu_seconds(self._artifacts)
            self._looked = self._clock()
        with self._database.transaction() as connection:
            names = {"searches": searches_of(self._artifacts.study)}
            searched = connection.scalar(text(statements.STUDY_GPU_SECONDS), names)
        return self._other_stages + float(searched or 0.0)


def stages_gpu_seconds(artifacts: Artifacts) -> float:
    """Returns the GPU seconds of all stages but tune, whose leases count."""
    return sum(_of_stage(artifacts, stage) for stage in STAGES if stage != "tune")


def _of_stage(artifacts: Artifacts, stage: Stage) -> float:
    # results first: one that is committed between the two readings is missed until the next time, but not counted twice
    committed = sum(manifest.run.device_seconds for manifest in artifacts.manifests(stage))
    return committed + sum(record.gpu_seconds for record in records_under_way(artifacts, stage))
