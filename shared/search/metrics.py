"""Provides Prometheus' `/metrics`: what the monitor reads about the searches from PostgreSQL, each time that Prometheus scrapes it.

Every value has the labels study and experiment. Values that count since the search began are counters, whatever process serves them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shared.errors import TailfillError
from shared.log import Log
from shared.search.monitor import SearchSnapshot

CACHE_SECONDS = 5.0  # several scrapers, or an impatient one, cost the database no more than one
STATES = ("complete", "pruned", "failed", "running", "queued")
LABELS = ("study", "experiment")
GAUGES: dict[str, tuple[str, Callable[[SearchSnapshot], float | None]]] = {
    "tailfill_trials_wanted": ("Finished trials that the step ends with.", lambda s: s.wanted),
    "tailfill_stale_leases": ("Trials whose worker has not renewed its lease lately.", lambda s: s.stale),
    "tailfill_workers": ("Workers that had a heartbeat or renewed a lease lately.", lambda s: s.workers),
    "tailfill_best_value": ("Best value of the objective in the step; absent before there is one.", lambda s: s.best),
    "tailfill_coordinator_silent_seconds": (
        "Seconds since a coordinator last wrote to the search.",
        lambda s: s.ticked_seconds,
    ),
}
COUNTERS: dict[str, tuple[str, Callable[[SearchSnapshot], float]]] = {
    "tailfill_gpu_seconds": ("Seconds for which trials held a GPU.", lambda s: s.gpu_seconds),
    "tailfill_gpu_lost_seconds": ("Of these, work that was lost with a worker.", lambda s: s.gpu_lost_seconds),
    "tailfill_worker_seconds": ("Seconds for which workers held trials, on whatever device.", lambda s: s.used_seconds),
    "tailfill_worker_lost_seconds": ("Of these, work that was lost with a worker.", lambda s: s.lost_seconds),
    "tailfill_resumes": ("Claims of trials that had been begun before.", lambda s: s.resumes),
    "tailfill_worker_losses": ("Workers lost with a trial.", lambda s: s.losses),
}

_log = Log("metrics")


class SearchMetrics(Collector):
    """Collects the metrics of a study's searches; if an experiment has several searches, the one that was coordinated last counts."""

    def __init__(
        self,
        study: str,
        read: Callable[[], list[SearchSnapshot]],
        steps: Callable[[], Mapping[tuple[str, str], int]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes `steps`, which returns how many steps of each stage are in which state, or None if that is not known."""
        self._study, self._read, self._steps, self._clock = study, read, steps, clock
        self._lock = threading.Lock()
        self._cached: list[Metric] = []
        self._until = -float("inf")

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics, which are at most `CACHE_SECONDS` old."""
        with self._lock:
            if self._clock() >= self._until:
                self._cached = self._read_now()
                self._until = self._clock() + CACHE_SECONDS
            yield from self._cached

    def describe(self) -> list[Metric]:
        """Returns nothing: a registry that asks would query the database before anyone scrapes."""
        return []

    def _read_now(self) -> list[Metric]:
        try:
            snapshots, up = self._read(), 1
        except TailfillError as error:
            _log.warning("no metrics to serve", reason=str(error))
            snapshots, up = [], 0
        latest = {search.experiment: search for search in sorted(snapshots, key=lambda s: -s.ticked_seconds)}
        searches = list(latest.values())
        database = GaugeMetricFamily("tailfill_database_up", "Whether PostgreSQL answered.", labels=["study"])
        database.add_metric([self._study], up)
        return [database, *self._stages(), self._trials(searches), *self._gauges(searches), *self._counters(searches)]

    def _stages(self) -> Iterator[Metric]:
        if self._steps is not None:
            family = GaugeMetricFamily(
                "tailfill_stage", "Steps of the study by stage and state.", labels=["study", "stage", "state"]
            )
            for (stage, state), count in self._steps().items():
                family.add_metric([self._study, stage, state], count)
            yield family

    def _trials(self, searches: list[SearchSnapshot]) -> Metric:
        family = GaugeMetricFamily("tailfill_trials", "Trials of the step by state.", labels=[*LABELS, "state"])
        for search in searches:
            for state in STATES:
                running = search.stale if state == "running" else 0
                family.add_metric([*self._labels(search), state], getattr(search, state) + running)
        return family

    def _gauges(self, searches: list[SearchSnapshot]) -> Iterator[Metric]:
        for name, (words, value_of) in GAUGES.items():
            family = GaugeMetricFamily(name, words, labels=LABELS)
            for search in searches:
                if (value := value_of(search)) is not None:
                    family.add_metric(self._labels(search), value)
            yield family

    def _counters(self, searches: list[SearchSnapshot]) -> Iterator[Metric]:
        for name, (words, count_of) in COUNTERS.items():
            counter = CounterMetricFamily(name, words, labels=LABELS)
            for search in searches:
                counter.add_metric(self._labels(search), count_of(search))
            yield counter

    def _labels(self, search: SearchSnapshot) -> list[str]:
        return [self._study, search.experiment or ""]
