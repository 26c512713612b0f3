"""`tailfill control`: what a release's control Pod runs, which is small and holds no state."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Mapping
from dataclasses import asdict

from shared.artifacts.keys import canonical_digest
from shared.artifacts.open import is_s3, split_s3
from shared.artifacts.store import NotFound
from shared.config.load import load_study
from shared.config.resolve import ResolvedStudy
from shared.errors import ConfigError, UnavailableError
from shared.kube.release import CHART, Release
from shared.log import Log
from shared.pipeline.kube_executor import PATIENCE_SECONDS, KubeExecutor
from shared.pipeline.scheduler import Scheduler
from shared.pipeline.session import Fingerprints, Session, fingerprints, open_session
from shared.pipeline.status import states
from shared.search.identity import searches_of
from shared.search.metrics_server import metrics_served
from shared.search.overview import read_searches
from shared.settings import Settings
from shared.stop import StopSignal

DONE_SECONDS = 10.0  # between two looks once the report is there: only workers that are scaled up need one
SAY_SECONDS = 30.0  # between two lines on a service that is still away

log = Log("control")


class ControlPod:
    """`tailfill control`: runs the release's study to its report, and stays, as the Pods of a Deployment do."""

    def __init__(self) -> None:
        self.stop = StopSignal()
        self.stop.install()
        self.settings = Settings.from_environment()
        self.release = Release.of_pod(self.settings)
        self.study = mounted_study()
        self.control: Scheduler | None = None
        self.jobs: KubeExecutor | None = None

    def run(self) -> None:
        """Returns never; raises Stopped at a signal, and what ends a study."""
        with metrics_served(self.settings, self.study.name, searches_of(self.study.name), self.states):
            opened = self._open()
            jobs = self.jobs = KubeExecutor(self.release, opened)
            self.control = Scheduler(self.study, opened.steps, opened.artifacts, jobs, log.info, self.stop)
            log.info(f"study {self.study.name}: {len(opened.steps)} stages", store=opened.artifacts.store.url)
            report = self.control.run()
            log.info("the study is done", report=f"{opened.artifacts.store.url}/{self.study.name}/report/{report.key}")
            while True:  # workers that are scaled up now find no work
                self.stop.raise_if_set()
                with contextlib.suppress(UnavailableError):
                    jobs.advance()
                self.stop.wait(DONE_SECONDS)

    def states(self) -> Mapping[tuple[str, str], int]:
        """How many steps of each stage are in which state, for `/metrics`."""
        if self.control is None or self.jobs is None:
            return {}
        return self.control.states({id_ for id_, work in list(self.jobs.work.items()) if work.failed is not None})

    def _open(self) -> Session:
        """Waits for services that are starting."""
        deadline, said = time.monotonic() + PATIENCE_SECONDS, -float("inf")
        while True:
            self.stop.raise_if_set()
            try:
                self._make_bucket()
                opened = open_mounted(self.study, self.settings)
                ask_database(opened)
                return opened
            except UnavailableError as error:
                if time.monotonic() >= deadline:
                    raise
                if time.monotonic() - said >= SAY_SECONDS:
                    said = time.monotonic()
                    log.info("waiting for a service", reason=str(error))
                self.stop.wait(random.uniform(2.0, 4.0))

    def _make_bucket(self) -> None:
        from shared.artifacts.s3 import ensure_bucket

        if self.settings.create_bucket and self.settings.store is not None:
            ensure_bucket(split_s3(self.settings.store)[0], self.settings)


def ask_database(opened: Session) -> None:
    """Raises what the database answers, while a search is still to come: before GPUs have worked for it."""
    rows = states(opened.study, opened.steps, opened.artifacts)
    if any(row.step.stage == "tune" and row.manifest is None for row in rows):
        read_searches(opened.database_url, searches_of(opened.study.name))


def mounted_study() -> ResolvedStudy:
    """The release's study, as the chart mounts it."""
    return load_study(CHART / "study" / "study.json")


def open_mounted(study: ResolvedStudy, settings: Settings, look: bool = False) -> Session:
    """The release's study with its plan.

    Fingerprints of data and weights are kept in the store: those of large files, so that they are read once, and with `look` all, as
    control found them last.
    """
    if settings.store is None or not is_s3(settings.store):
        raise ConfigError("TAILFILL_STORE: must be s3://bucket/prefix on a cluster, whose Pods share no folder")
    bucket, prefix = split_s3(settings.store)
    from shared.artifacts.s3 import S3Store

    kept = S3Store(bucket, f"{prefix}/{study.name}/digests".strip("/"), settings)
    name = f"study-{canonical_digest(study.written.model_dump(mode='json'))}"
    if look:
        try:
            return open_session(study, Fingerprints(**json.loads(kept.get(name))), settings)
        except NotFound:
            pass  # control has not got so far
    found = fingerprints(study, settings, kept)
    kept.put(name, json.dumps(asdict(found)).encode())
    return open_session(study, found, settings)
