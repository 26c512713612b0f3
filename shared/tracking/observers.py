"""Opens what the environment names to follow a study: MLflow, TensorBoard and a webhook. Nothing of them is imported unless asked for."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.manifest import Manifest
from shared.config.task import Task
from shared.errors import Stopped, UnavailableError
from shared.pipeline.plan import Step
from shared.pipeline.search_status import LOCAL_HINTS, Hints
from shared.pipeline.session import Session
from shared.pipeline.status import StepState
from shared.settings import Settings
from shared.stop import StopSignal
from shared.tracking.delivery import Delivery
from shared.tracking.records import Committed, Event, RunRecord, runs_of
from shared.tracking.urls import read_address
from shared.tracking.watch import Failures, Watch
from shared.tracking.webhook import VARIABLE, Happening, Webhook

END_SECONDS = 60.0  # that the end of a study waits for its trackers
UNTRACKED = dict.fromkeys(
    ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
     "TAILFILL_TENSORBOARD", "TAILFILL_WEBHOOK"), ""
)  # fmt: skip
"""Holds the variables of a stage's process, which needs none of these, nor their secrets."""


class Tracker(Protocol):
    """Keeps runs somewhere, each once."""

    name: str

    def logged(self, identity: str, digest: str) -> bool:
        """Returns whether a run of that identity and digest is kept; raises UnavailableError."""

    def log(self, record: RunRecord) -> None:
        """Keeps a run; raises UnavailableError if a later attempt may succeed, and DataError or ConfigError if none can."""


class Observers:
    """Tells trackers and webhook what happens to a study; implements `shared.pipeline.scheduler.Observer`.

    Every method returns at once and raises nothing.
    """

    def __init__(self, session: Session, trackers: Sequence[Tracker], webhook: Webhook | None) -> None:
        """Starts a thread for each of them."""
        self._session = session
        artifacts = session.artifacts
        again = "what is missing is logged when it is run again"
        self._trackers = [Delivery[Event](each.name, _receiver(each, artifacts), again) for each in trackers]
        self._webhook: Delivery[Happening] | None = None
        if webhook is not None:
            self._webhook = Delivery(webhook.name, webhook.post, "see that its server answers")
        self._watch: Watch | None = None
        self._done = False
        self._committed = 0

    def committed(self, step: Step, task: Task, manifest: Manifest) -> None:
        """Hears of a step that is committed now, or was found committed."""
        self._committed += 1
        self._track(Committed(step.label, task, manifest))
        ended = manifest.summary.get("ended")
        if manifest.stage == "tune" and isinstance(ended, str) and ended.startswith("search.budget."):
            self.happened(
                Happening("budget spent", f"{step.label} ended early: {ended}", f"budget {manifest.key}", step.label)
            )
        if manifest.stage == "report":
            self._done = True
            store = f"{self._session.artifacts.store.url}/{manifest.study}/report/{manifest.key}"
            answer = str(manifest.summary.get("answer", ""))
            self.happened(
                Happening("done", f"the study is done. {answer}".strip(), f"done {manifest.digest}", report=store)
            )

    def watch(
        self, rows: Callable[[], Sequence[StepState]], failures: Failures = dict, hints: Hints = LOCAL_HINTS
    ) -> None:
        """Begins to look at the running study, if anything follows it."""
        if self._trackers or self._webhook:
            trials = self._track if self._trackers else None
            self._watch = Watch(self._session, rows, trials, self.happened if self._webhook else None, failures, hints)
            self._watch.start()

    def happened(self, happening: Happening) -> None:
        """Posts a happening, unless it was posted before."""
        if self._webhook is not None:
            self._webhook.put(happening)

    def failed(self, error: BaseException, restarted: str | None) -> None:
        """Hears of the error that ends this run. `restarted` identifies the runs of a study that is restarted by others, None if it is not.

        A run that is restarted ends again and again while a service is unavailable, which is one stall.
        """
        if self._done:
            return
        sentence = str(error) or type(error).__name__
        if restarted is not None and isinstance(error, UnavailableError):
            self.happened(
                Happening("stalled", f"nothing moves: {sentence}", f"unavailable {restarted} {self._committed}")
            )
        else:
            run = uuid.uuid4().hex if restarted is None else restarted
            self.happened(
                Happening("failed", f"the study failed: {sentence}", f"failed {run} {self._committed} {sentence}")
            )

    def close(self, seconds: float, stop: StopSignal) -> None:
        """Ends the threads, after what waits is delivered, for at most so many seconds in all or until a signal; 0 drops what waits."""
        if self._watch is not None:
            self._watch.close()
        deadline = time.monotonic() + seconds
        deliveries: list[Delivery[Any]] = [*self._trackers, *([self._webhook] if self._webhook else [])]
        if not seconds:
            for delivery in deliveries:
                delivery.abandon()
            return
        for delivery in deliveries:
            delivery.begin_close()
        for delivery in deliveries:
            delivery.end_close(deadline, stop)

    def _track(self, event: Event) -> None:
        for tracker in self._trackers:
            tracker.put(event)


def _receiver(tracker: Tracker, artifacts: Artifacts) -> Callable[[Event], None]:
    def receive(event: Event) -> None:
        for run in runs_of(event, artifacts, tracker.logged):
            tracker.log(run.read())

    return receive


@contextmanager
def observing(session: Session, stop: StopSignal, restarted: str | None = None) -> Iterator[Observers]:
    """Yields the observers that the environment names, and closes them at the end of the block, whose error is a failure of the study.

    `restarted` identifies the study if others restart a run that ends with an error, as Kubernetes does. Raises ConfigError as
    `check_trackers` does.
    """
    observers = Observers(session, _trackers(session.settings, session.study.name), _webhook(session))
    try:
        yield observers
    except (Stopped, KeyboardInterrupt):
        observers.close(0.0, stop)
        raise
    except BaseException as error:
        observers.failed(error, restarted)
        observers.close(END_SECONDS, stop)
        raise
    observers.close(END_SECONDS, stop)


def check_trackers(settings: Settings, study: str) -> None:
    """Raises ConfigError, which shows no secret, if a tracker or webhook that the environment names cannot be used as it is written.

    Nothing is connected to: a server that does not answer now may answer later, and stops no study.
    """
    _trackers(settings, study)
    if settings.webhook is not None:
        read_address(VARIABLE, settings.webhook)


def _trackers(settings: Settings, study: str) -> list[Tracker]:
    trackers: list[Tracker] = []
    if settings.mlflow_uri is not None:
        from shared.tracking.mlflow_runs import MlflowRuns

        trackers.append(MlflowRuns(settings, study))
    if settings.tensorboard is not None:
        from shared.tracking.event_files import EventFiles

        trackers.append(EventFiles(settings, study))
    return trackers


def _webhook(session: Session) -> Webhook | None:
    if session.settings.webhook is None:
        return None
    return Webhook(session.settings, session.study.name, session.artifacts.store)
