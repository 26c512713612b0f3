"""Looks at a running study twice a minute: for trials that have ended, tasks that have failed on a cluster, and for a stall."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from shared.config.stages import TuneConfig
from shared.errors import TailfillError
from shared.log import Log
from shared.pipeline.search_status import LOCAL_HINTS, Hints, SearchState, name_of_search, search_states
from shared.pipeline.session import Session
from shared.pipeline.status import StepState
from shared.tracking.records import TrialsEnded
from shared.tracking.webhook import Happening

LOOK_SECONDS = 30.0  # between two looks
STALL_SECONDS = 600.0  # without any movement, before a stall is reported

log = Log("tracking")

Failures = Callable[[], Mapping[str, tuple[str, str]]]
"""Returns why tasks have failed for good while the study goes on, by step id: the reason, and what identifies the failure."""


class Watch:
    """Looks at the study in a thread of its own, and calls `trials` and `happened` with what it sees."""

    def __init__(
        self,
        session: Session,
        rows: Callable[[], Sequence[StepState]],
        trials: Callable[[TrialsEnded], None] | None,
        happened: Callable[[Happening], None] | None,
        failures: Failures = dict,
        hints: Hints = LOCAL_HINTS,
    ) -> None:
        """Prepares to look at the `rows`, the scheduler's states of all steps. Without `trials` they are not read."""
        self._session, self._rows, self._hints = session, rows, hints
        self._trials, self._happened, self._failures = trials, happened, failures
        self._over = threading.Event()
        self._seen = dict[str, tuple[int, int]]()  # by search: how many trials had finished and failed
        self._moved, self._signature = time.monotonic(), object()
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread after the look that it is taking; it is not waited for."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECONDS * random.uniform(0.75, 1.25)):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - whoever only looks never stops a study
                reason = (
                    str(error) if isinstance(error, TailfillError) else type(error).__name__
                )  # may contain a secret
                if not self._warned:
                    log.warning("the study cannot be watched at the moment, and goes on", reason=reason)
                self._warned = True

    def look(self) -> None:
        """Looks once; raises what the store and PostgreSQL raise."""
        rows = self._rows()
        failed = dict(self._failures())
        if self._happened is not None:
            self._report_failures(rows, failed)
        begun = [row for row in rows if row.task is not None and row.manifest is None]
        if not any(row.step.stage == "tune" for row in begun):
            self._moved = time.monotonic()
            return
        states = search_states(rows, self._session.artifacts, self._session.database_url, self._hints)
        self._report_stall(begun, states, failed)
        if self._trials is not None:
            self._report_trials(begun, states)

    def _report_failures(self, rows: Sequence[StepState], failed: Mapping[str, tuple[str, str]]) -> None:
        assert self._happened is not None
        for row in rows:
            if row.step.id in failed and row.manifest is None and row.task is not None:
                reason, identity = failed[row.step.id]
                sentence = f"{row.step.label} failed: {reason}"
                self._happened(Happening("failed", sentence, f"failed {row.task.key} {identity}", row.step.label))

    def _report_stall(
        self, begun: Sequence[StepState], states: Sequence[SearchState], failed: Mapping[str, tuple[str, str]]
    ) -> None:
        """Reports a stall if for `STALL_SECONDS` no step was committed, no other stage ran, and each open search says why nothing moves."""
        searches = [state for state in states if not state.waiting]
        others = [row for row in begun if row.step.stage != "tune" and row.step.id not in failed]
        reasons = [(state.step, state.stall) for state in searches if state.stall is not None]
        finished = {state.step: state.snapshot.finished if state.snapshot else 0 for state in searches}
        signature = (len(begun), tuple(sorted(finished.items())))
        if others or len(reasons) < len(searches) or signature != self._signature:
            self._moved, self._signature = time.monotonic(), signature
            return
        if self._happened is not None and reasons and time.monotonic() - self._moved >= STALL_SECONDS:
            step, reason = reasons[0]
            sentence = f"nothing moves: {step}: {reason}"
            self._happened(Happening("stalled", sentence, f"stalled {sorted(finished.items())}", step))

    def _report_trials(self, begun: Sequence[StepState], states: Sequence[SearchState]) -> None:
        assert self._trials is not None
        by_step = {state.step: state.snapshot for state in states}
        for row in begun:
            snapshot = by_step.get(row.step.label)
            if snapshot is None or row.task is None:
                continue
            ended = (snapshot.finished, snapshot.failed)
            if ended != self._seen.get(row.task.key, (0, 0)):
                self._trials(TrialsEnded(row.step.label, row.task, self._read(row)))
                self._seen[row.task.key] = ended

    def _read(self, row: StepState) -> Sequence[Mapping[str, object]]:
        from shared.search.results import ended_trials

        assert row.task is not None
        assert isinstance(row.task.config, TuneConfig)
        name = name_of_search(row.task, self._session.artifacts)
        return ended_trials(self._session.database_url, name, row.task.config.search)
