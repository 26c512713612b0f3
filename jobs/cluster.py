"""A study's stages as Jobs of a cluster: what the release's control Pod runs, `tailfill control`.

Jobs are made from the manifests that the chart rendered, when everything that they need is committed: a Job that waits would hold its GPU.
Tuning workers are the Pods of a Deployment that people scale; they are let through to a GPU while there are trials for them.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from jobs.control import Control, Ended
from jobs.opened import Fingerprints, Opened, fingerprints, open_study
from jobs.plan import Step
from jobs.status import states
from jobs.workers import Workers
from shared.artifacts.manifest import canonical_digest
from shared.artifacts.open import is_s3, split_s3
from shared.artifacts.store import NotFound
from shared.config.load import load_study
from shared.config.study import Study
from shared.config.task import Task
from shared.errors import ConfigError, UnavailableError
from shared.kube.api import ClusterError, Object
from shared.kube.manifests import (
    MANIFEST,
    SUBMITTED,
    jobs_selector,
    manifest_digest,
    parallelism,
)
from shared.kube.release import CHART, Release
from shared.kube.states import at_work, job_state
from shared.log import Log
from shared.search.identity import searches_of
from shared.search.metrics_server import metrics_served
from shared.search.monitor import read_searches
from shared.settings import Settings
from shared.stop import StopSignal

PATIENCE_SECONDS = 600.0  # that a service may be away before control ends with 75, and is started again
STORE_SECONDS = 30.0  # between two looks at the store for what others have committed
REFUSED_SECONDS = 60.0  # before a Job that the cluster refused is asked for again
DONE_SECONDS = 10.0  # between two looks once the report is there: only workers that are scaled up need one
CLOCKS_SECONDS = 60.0  # that the clocks of nodes and API server may differ
SAY_SECONDS = 30.0  # between two lines on a service that is still away

log = Log("control")


@dataclass
class _Work:
    """A task that is a Job's."""

    step: Step
    task: Task
    failed: str | None = None
    """Why, in Kubernetes' words and those of its Pod."""
    not_before: float = 0.0
    """When a Job that is missing is asked for again, by the monotonic clock."""
    kept_until: float = math.inf
    """When Kubernetes removes its failed Job, in seconds since 1970: before that, only a person does."""


class Jobs:
    """Implements `jobs.control.Executor`."""

    tick_seconds = 2.0
    patience = PATIENCE_SECONDS

    def __init__(self, release: Release, opened: Opened) -> None:
        self.release, self.opened = release, opened
        self.work: dict[str, _Work] = {}
        self._workers = Workers(release.cluster, release.name, opened)
        self._looked = False
        self._read_store = time.monotonic()
        self._committed = set[str]()
        """Steps whose result the last look at the store found, while their Job was not complete."""

    def begin(self, step: Step, task: Task) -> None:
        """Has a Job made for the task."""
        self.work[step.id] = _Work(step, task)

    def advance(self) -> list[Ended]:
        """Looks after the tuning workers, makes Jobs that are missing, and says which are complete."""
        jobs = {
            job["metadata"]["name"]: job for job in self.release.cluster.list("jobs", jobs_selector(self.release.name))
        }
        if not self._looked:
            self._first_look(jobs)
        there = Counter(
            str(job["metadata"]["labels"]["app.kubernetes.io/component"])
            for job in jobs.values()
            if job_state(job).phase in ("active", "suspended")
        )
        self._workers.advance(
            [work.task for work in self.work.values() if work.task.stage == "tune" and work.failed is None]
        )
        ended = self._done_elsewhere(jobs)
        seen = {done.step.id for done in ended}
        for work in (work for id_, work in self.work.items() if id_ not in seen):
            job = jobs.get(self.release.job_name(work.task))
            if job is None:
                ended += self._ensure(work, there)
                continue
            state = job_state(job)
            if state.phase == "complete":
                ended.append(Ended(work.step, _seconds(job)))
            elif state.phase == "failed" and work.failed is None:
                self._failed(work, " ".join(filter(None, [state.reason, self.release.failure(job)])))
                work.kept_until = _kept_until(job)
        for done in ended:  # last: what is taken out here is not looked at again, so nothing after it may fail
            del self.work[done.step.id]
        return ended

    def _failed(self, work: _Work, reason: str) -> None:
        if work.failed != reason:
            log.error(
                f"{work.step.label}: its Job {self.release.job_name(work.task)} failed: {reason}; mend it with `helm upgrade`, "
                "or delete that Job (or control's Pod) to try again"
            )
        work.failed = reason

    def end(self) -> None:
        """Leaves Jobs as they are: they go on without control."""

    def _first_look(self, jobs: dict[str, Object]) -> None:
        """Ends Jobs whose key left the plan. Those that failed, whose result was removed since, or that have no Pod at work and another
        manifest now (a node or an image that there is not), are made again; one that runs is not disturbed."""
        works = {self.release.job_name(work.task): work for work in self.work.values()}
        for name, job in list(jobs.items()):
            active = job_state(job).phase in ("active", "suspended")
            if active and name not in works and SUBMITTED not in job["metadata"]["labels"]:
                log.info("a Job is no part of the plan any more and is ended", job=name)
            elif name in works and not active:
                log.info("a Job is made again", job=name, was=job_state(job).phase)
            elif name in works and not at_work(job) and not self._is_current(job, works[name]):
                log.info("a Job that is not at work is made again from its new manifest", job=name)
            else:
                continue
            self.release.cluster.delete("jobs", name)
            del jobs[name]
        self._workers.scale_once()
        self._looked = True

    def _is_current(self, job: Object, work: _Work) -> bool:
        made_from = job["metadata"].get("annotations", {}).get(MANIFEST)
        return bool(made_from == manifest_digest(self.release.manifests[work.task.stage]))

    def _ensure(self, work: _Work, there: Counter[str]) -> list[Ended]:
        """Makes the task's Job, unless as many of its stage are there as may be, or its work was done meanwhile."""
        stage = work.task.stage
        most = parallelism(self.release.manifests[stage])
        if (most is not None and there[stage] >= most) or time.monotonic() < work.not_before:
            return []
        if self.opened.artifacts.find(stage, work.task.key) is not None:
            return [Ended(work.step, None)]
        if time.time() >= work.kept_until:  # Kubernetes has removed its failed Job, nobody asks for another
            work.not_before = time.monotonic() + STORE_SECONDS
            return []
        try:
            if self.release.create_job(work.task):
                log.info(f"{work.step.label}: begun", job=self.release.job_name(work.task))
            work.failed, work.kept_until = None, math.inf  # a person deleted the failed Job, to have it made again
            there[stage] += 1
        except ClusterError as error:  # a policy or a quota: the others go on
            self._failed(work, str(error))
            work.not_before = time.monotonic() + REFUSED_SECONDS
        return []

    def _done_elsewhere(self, jobs: dict[str, Object]) -> list[Ended]:
        """Now and then: what another machine has committed while its Job here waits for a node, or has failed."""
        if time.monotonic() - self._read_store < STORE_SECONDS:
            return []
        self._read_store = time.monotonic()
        before, self._committed = self._committed, set()
        ended = []
        for id_, work in self.work.items():
            job = jobs.get(self.release.job_name(work.task))
            if job is None or job_state(job).phase == "complete" or (job_state(job).phase == "active" and at_work(job)):
                continue
            if self.opened.artifacts.find(work.task.stage, work.task.key) is None:
                continue
            # by the next look a Job whose own Pod has just ended well is complete, and stays for people to look at
            self._committed.add(id_)
            if id_ in before:
                ended.append(Ended(work.step, None))
                self.release.cluster.delete("jobs", job["metadata"]["name"])
        return ended


def _kept_until(job: Object) -> float:
    """When Kubernetes removes a failed Job (by its own clock: a minute early, then), in seconds since 1970."""
    (failed,) = (c for c in job["status"]["conditions"] if c["type"] == "Failed")
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    if ttl is None:
        return math.inf
    return datetime.fromisoformat(failed["lastTransitionTime"]).timestamp() + float(ttl) - CLOCKS_SECONDS


def _seconds(job: Object) -> float | None:
    status = job["status"]
    begun, ended = status.get("startTime"), status.get("completionTime")
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds() if begun and ended else None


class ControlPod:
    """`tailfill control`: runs the release's study to its report, and stays, as the Pods of a Deployment do."""

    def __init__(self) -> None:
        self.stop = StopSignal()
        self.stop.install()
        self.settings = Settings.from_environment()
        self.release = Release.of_pod(self.settings)
        self.study = mounted_study()
        self.control: Control | None = None
        self.jobs: Jobs | None = None

    def run(self) -> None:
        """Returns never; raises Stopped at a signal, and what ends a study."""
        with metrics_served(self.settings, self.study.name, searches_of(self.study.name), self.states):
            opened = self._open()
            jobs = self.jobs = Jobs(self.release, opened)
            self.control = Control(self.study, opened.steps, opened.artifacts, jobs, log.info, self.stop)
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

    def _open(self) -> Opened:
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


def ask_database(opened: Opened) -> None:
    """Raises what the database answers, while a search is still to come: before GPUs have worked for it."""
    rows = states(opened.study, opened.steps, opened.artifacts)
    if any(row.step.stage == "tune" and row.manifest is None for row in rows):
        read_searches(opened.database_url, searches_of(opened.study.name))


def mounted_study() -> Study:
    """The release's study, as the chart mounts it."""
    return load_study(CHART / "study" / "study.json")


def open_mounted(study: Study, settings: Settings, look: bool = False) -> Opened:
    """The release's study with its plan.

    Fingerprints of data and weights are kept in the store: those of large files, so that they are read once, and with `look` all, as
    control found them last.
    """
    if settings.store is None or not is_s3(settings.store):
        raise ConfigError("TAILFILL_STORE: must be s3://bucket/prefix on a cluster, whose Pods share no folder")
    bucket, prefix = split_s3(settings.store)
    from shared.artifacts.s3 import S3Store

    kept = S3Store(bucket, f"{prefix}/{study.name}/digests".strip("/"), settings)
    name = f"study-{canonical_digest(study.model_dump(mode='json'))}"
    if look:
        try:
            return open_study(study, Fingerprints(**json.loads(kept.get(name))), settings)
        except NotFound:
            pass  # control has not got so far
    found = fingerprints(study, settings, kept)
    kept.put(name, json.dumps(asdict(found)).encode())
    return open_study(study, found, settings)
