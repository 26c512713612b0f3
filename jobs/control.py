"""Implements `tailfill control`, the program of a release's control Pod. It holds no state."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Mapping

from shared.artifacts.open import is_s3, open_bucket, split_s3
from shared.config.load import load_study
from shared.config.resolve import ResolvedStudy
from shared.errors import ConfigError, UnavailableError
from shared.kube.release import CHART, Release
from shared.log import Log
from shared.pipeline.kube_executor import PATIENCE_SECONDS, KubeExecutor
from shared.pipeline.release_endpoint import ControlState, Endpoint, endpoint_served
from shared.pipeline.release_status import release_hints
from shared.pipeline.scheduler import Scheduler
from shared.pipeline.session import Session, kept_fingerprints, open_session
from shared.pipeline.status import states
from shared.search.identity import searches_of
from shared.search.metrics_server import metrics_application, metrics_served
from shared.search.monitor import read_searches
from shared.settings import Settings
from shared.stop import StopSignal
from shared.tracking.observers import check_trackers, observing

DONE_SECONDS = 10.0  # between two looks at the copies of Jobs and Pods after the report is committed
LOG_SECONDS = 30.0  # between two log lines about a service that is still unavailable

log = Log("control")


class ControlPod:
    """Runs the release's study up to its report, and then keeps running, as the Pod of a Deployment must."""

    def __init__(self) -> None:
        self.stop = StopSignal()
        self.stop.install()
        self.settings = Settings.from_environment()
        self.release = Release.of_pod(self.settings)
        self.study = load_release_study()
        self.scheduler: Scheduler | None = None
        self.executor: KubeExecutor | None = None
        self.state = ControlState()
        """Holds what the endpoint may tell."""

    def run(self) -> None:
        """Runs the study; never returns. Raises Stopped at a signal, and the error that ends the study."""
        check_trackers(self.settings, self.study.name)
        with metrics_served(*self._searches()), endpoint_served(self.settings, self._endpoint):
            session = self._open_session()
            store = session.artifacts.store.url
            executor = self.executor = KubeExecutor(self.release, session)
            self.state = ControlState(session, requests=executor.requests, refusals=executor.refusals)
            log.info(f"study {self.study.name}: {len(session.steps)} stages", store=store)
            with observing(session, self.stop, self.settings.study) as observers:
                self.scheduler = Scheduler(
                    self.study, session.steps, session.artifacts, executor, log.info, self.stop, observers
                )
                observers.watch(self.scheduler.rows, executor.failures, release_hints(self.release.name))
                report = self.scheduler.run()
                log.info("the study is done", report=f"{store}/{self.study.name}/report/{report.key}")
                while True:  # the last workers have to end, and what users submit may be on a node that does not answer
                    self.stop.raise_if_set()
                    with contextlib.suppress(UnavailableError):
                        executor.advance()
                    self.stop.wait(DONE_SECONDS)

    def states(self) -> Mapping[tuple[str, str], int]:
        """Counts the steps by stage and state, for `/metrics`."""
        if self.scheduler is None or self.executor is None:
            return {}
        failed = {id_ for id_, entry in list(self.executor.tasks.items()) if entry.failed is not None}
        return self.scheduler.states(failed)

    def _endpoint(self) -> Endpoint:
        metrics = metrics_application(*self._searches())
        return Endpoint(self.release.name, self.release.cluster, lambda: self.state, metrics)

    def _searches(self) -> tuple[Settings, str, str, Callable[[], Mapping[tuple[str, str], int]]]:
        return self.settings, self.study.name, searches_of(self.study.name), self.states

    def _open_session(self) -> Session:
        """Returns the session, after waiting for services that are starting; raises UnavailableError after `PATIENCE_SECONDS`."""
        deadline, logged = time.monotonic() + PATIENCE_SECONDS, -float("inf")
        while True:
            self.stop.raise_if_set()
            try:
                self._make_bucket()
                session = open_release_session(self.study, self.settings)
                check_database(session)
                return session
            except UnavailableError as error:
                if time.monotonic() >= deadline:
                    raise
                if time.monotonic() - logged >= LOG_SECONDS:
                    logged = time.monotonic()
                    log.info("waiting for a service", reason=str(error))
                self.state = ControlState(waiting=str(error))
                self.stop.wait(random.uniform(2.0, 4.0))

    def _make_bucket(self) -> None:
        from shared.artifacts.s3_bucket import ensure_bucket

        if self.settings.create_bucket and self.settings.store is not None:
            ensure_bucket(split_s3(self.settings.store)[0], self.settings)


def check_database(session: Session) -> None:
    """Raises the database's error now if a search is still to run, before GPUs have worked for it in vain."""
    rows = states(session.study, session.steps, session.artifacts)
    if any(row.step.stage == "tune" and row.manifest is None for row in rows):
        read_searches(session.database_url, searches_of(session.study.name))


def load_release_study() -> ResolvedStudy:
    """Returns the release's study, which the chart mounts into the control Pod."""
    return load_study(CHART / "study" / "study.json")


def open_release_session(study: ResolvedStudy, settings: Settings) -> Session:
    """Opens the release's study, whose fingerprints are kept in the store; raises ConfigError if its store is not a bucket."""
    if settings.store is None or not is_s3(settings.store):
        raise ConfigError("TAILFILL_STORE: must be s3://bucket/prefix on a cluster, whose Pods share no folder")
    bucket, prefix = split_s3(settings.store)
    digest_store = open_bucket(bucket, f"{prefix}/{study.name}/digests".strip("/"), settings)
    return open_session(study, kept_fingerprints(study, settings, digest_store), settings)
