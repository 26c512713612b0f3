"""Carries out what people request of a release by ConfigMaps: final trainings, as Jobs beside those of the study.

A request is decided once. The decision is kept in the store, with the trainings that it stands for, so that a control that starts later neither
decides anew nor trains with parameters that were found since. The rest is read from the store and from the Jobs, whose label names their request.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError, model_validator

from shared.artifacts.manifest import Manifest
from shared.artifacts.store import NotFound
from shared.config.base import Section
from shared.config.stages import FinalConfig
from shared.config.task import Task, TaskReference
from shared.errors import ArtifactError, InputError, UnavailableError
from shared.kube.api import ClusterError, Object
from shared.kube.manifests import SUBMITTED, held_tasks, parallelism, stages_name
from shared.kube.mirror import Mirror
from shared.kube.release import Release
from shared.kube.requests import REQUEST, read_request
from shared.kube.states import job_state
from shared.log import Log
from shared.names import checked_part
from shared.pipeline.blocks import deal
from shared.pipeline.final_tasks import final_tasks
from shared.pipeline.session import Session

LOOK_SECONDS = 10.0  # between two looks into the store for what a request's Jobs have committed
RETRY_SECONDS = 30.0  # before a request is tried again that a service, or the cluster, held up
LONGEST_REASON = 1000  # characters

log = Log("control")


class Decision(Section):
    """Holds what was decided about a request, as the store has it."""

    state: Literal["accepted", "refused", "failed", "done"]
    reason: str = ""
    tasks: TaskReference | None = None
    """Refers to the trainings; None if it was refused."""

    @model_validator(mode="after")
    def _check(self) -> Decision:
        if (self.tasks is None) != (self.state == "refused") or (self.tasks and self.tasks.stage != "final"):
            raise ValueError("trainings belong to what was accepted, and to nothing else")
        return self


@dataclass(frozen=True)
class RequestState:
    """Holds the state of one request."""

    name: str
    """Names its ConfigMap."""
    uid: str
    state: Literal["waiting", "accepted", "refused", "failed", "done"]
    reason: str = ""
    """Says why it waits, was refused or has failed."""
    tasks: tuple[Task, ...] = ()
    committed: frozenset[str] = frozenset()
    """Holds the keys of its trainings that are committed."""
    jobs: tuple[str, ...] = ()
    """Names the Jobs that work on it."""
    not_before: float = field(default=0.0, compare=False)
    """Gives the time, by the monotonic clock, of the next attempt."""

    def line(self) -> str:
        """Returns the state as text."""
        trained = f", {len(self.committed)} of {len(self.tasks)} trained" if self.tasks else ""
        experiments = ", ".join(dict.fromkeys(task.experiment or "" for task in self.tasks))
        return f"{self.name}: {self.state}{trained}" + "".join(
            f": {each}" for each in (experiments, self.reason) if each
        )

    def as_json(self) -> dict[str, Any]:
        """Returns the state for a script, as JSON values."""
        return {
            "request": self.name,
            "uid": self.uid,
            "state": self.state,
            "reason": self.reason or None,
            "jobs": list(self.jobs),
            "trainings": [
                {"experiment": task.experiment, "seed": repeat_of(task), "key": task.key, "committed": task.key in self.committed}
                for task in self.tasks
            ],
        }  # fmt: skip


def repeat_of(task: Task) -> int:
    """Returns the number of a final training's repetition."""
    assert isinstance(task.config, FinalConfig)
    return task.config.repeat


class FinalRequests:
    """Follows the requests of a release, which the API server tells, and creates their Jobs."""

    def __init__(self, release: Release, session: Session) -> None:
        self.release, self.session = release, session
        self.problem = ""
        """Says why requests cannot be read, if they cannot."""
        self._found = Mirror(release.cluster, "configmaps", REQUEST)
        self._states: dict[str, RequestState] = {}
        """Holds the states by the uid of the ConfigMap."""
        self._not_before = 0.0

    def states(self) -> list[RequestState]:
        """Returns the state of each request, by name; another thread may call it."""
        found = list(self._states.values())
        return sorted(found, key=lambda each: (len(each.name), each.name))

    def results(self, name: str) -> list[tuple[Task, Manifest]]:
        """Returns the committed trainings of a request; raises UnavailableError if the store does not answer."""
        found = next((each for each in self.states() if each.name == name), None)
        tasks = found.tasks if found else ()
        return [(task, manifest) for task in tasks if (manifest := self.session.artifacts.find("final", task.key))]

    def advance(self, jobs: Sequence[Object]) -> None:
        """Decides new requests, and creates the Jobs that the accepted ones lack; `jobs` are those of the release.

        It raises nothing that concerns requests alone: what holds one up is in its state, and the study goes on.
        """
        if time.monotonic() < self._not_before:
            return
        try:
            found = {str(each["metadata"]["uid"]): each for each in self._found.objects()}
        except (UnavailableError, ClusterError) as error:
            self._not_before = _later(RETRY_SECONDS)
            if self.problem != str(error):
                log.warning("requests for final trainings cannot be read", reason=str(error))
            self.problem = str(error)
            return
        self.problem = ""
        for uid in self._states.keys() - found.keys():
            del self._states[uid]
        for uid, each in found.items():
            state = self._states.get(uid) or RequestState(str(each["metadata"]["name"]), uid, "waiting")
            if state.state in ("waiting", "accepted") and time.monotonic() >= state.not_before:
                self._states[uid] = self._attempt(state, each, jobs)

    def _attempt(self, state: RequestState, found: Object, jobs: Sequence[Object]) -> RequestState:
        """Returns the state after the next step of a request, which says so if a service or the cluster holds it up."""
        try:
            step: Callable[..., RequestState] = self._decided if not state.tasks else self._carried_out
            return step(state, found, jobs)
        except (UnavailableError, ClusterError) as error:
            if state.reason != str(error)[:LONGEST_REASON]:
                log.warning("a request is held up", request=state.name, reason=str(error))
            return replace(state, reason=str(error)[:LONGEST_REASON], not_before=_later(RETRY_SECONDS))
        except InputError as error:  # what the store has of it is damaged
            log.warning("a request cannot be carried out", request=state.name, reason=str(error))
            return replace(state, state="failed", reason=str(error)[:LONGEST_REASON], jobs=())

    def _decided(self, state: RequestState, found: Object, jobs: Sequence[Object]) -> RequestState:
        decision = self._kept(state)
        if decision is None:
            decision = self._decide(state, found)
        if decision.state == "refused":
            return replace(state, state="refused", reason=decision.reason)
        assert decision.tasks is not None
        tasks = self._trainings(decision.tasks)
        decided = replace(state, state=decision.state, reason=decision.reason, tasks=tasks)
        if decision.state == "accepted":
            return self._carried_out(decided, found, jobs)
        artifacts = self.session.artifacts
        committed = {task.key for task in tasks if decision.state == "done" or artifacts.find("final", task.key)}
        return replace(decided, committed=frozenset(committed))

    def _decide(self, state: RequestState, found: Object) -> Decision:
        """Decides about a request and keeps that; raises UnavailableError if a service does not answer, so that it stays open."""
        if self._is_of_another_release(found):
            reason = f"configmap {state.name}: is for another release, whose control carries it out"
            return Decision(state="refused", reason=reason)
        try:
            request = read_request(found, self.release.name, self.session.study.name)
            tasks = final_tasks(self.session, request)
        except InputError as error:
            if isinstance(error, ClusterError):
                raise
            log.warning("a request is refused", request=state.name, reason=str(error))
            return self._keep(state, Decision(state="refused", reason=str(error)[:LONGEST_REASON]))
        log.info("a request is accepted", request=state.name, trainings=len(tasks))
        return self._keep(state, Decision(state="accepted", tasks=self.session.artifacts.save_tasks(tasks)))

    def _is_of_another_release(self, found: Object) -> bool:
        """Returns whether the namespace has another release for which the request is."""
        named = (found["metadata"].get("labels") or {}).get("app.kubernetes.io/instance")
        if named in (None, "", self.release.name):
            return False
        return bool(self.release.cluster.list("configmaps", field_selector=f"metadata.name={stages_name(named)}"))

    def _carried_out(self, state: RequestState, _: Object, jobs: Sequence[Object]) -> RequestState:
        """Returns the state after a look at what is committed, and the creation of missing Jobs."""
        artifacts = self.session.artifacts
        committed = state.committed | {
            task.key
            for task in state.tasks
            if task.key not in state.committed and artifacts.find("final", task.key) is not None
        }
        state = replace(state, committed=frozenset(committed), reason="", not_before=_later(LOOK_SECONDS))
        left = [task for task in state.tasks if task.key not in committed]
        if not left:
            log.info("a request is done", request=state.name)
            return self._ended(state, "done")
        keys = {task.key for task in left}
        own = [job for job in jobs if job["metadata"]["labels"].get(SUBMITTED) == state.uid]
        for job in own:
            phase, name = job_state(job), job["metadata"]["name"]
            if phase.ended and any(key in keys for _, key in held_tasks(job)):
                said = f"{phase.reason} {self.release.failure(job)}" if phase.phase == "failed" else "committed nothing"
                log.warning("a request has failed", request=state.name, job=name, reason=said)
                return self._ended(replace(state, reason=f"{name}: {said.strip()}; submit again"), "failed")
        unfinished = [job for job in jobs if not job_state(job).ended]
        holding = [job for job in unfinished if any(key in keys for _, key in held_tasks(job))]
        held = {key for job in holding for _, key in held_tasks(job)}
        missing = [task for task in left if task.key not in held]
        submitted = sum(SUBMITTED in job["metadata"]["labels"] for job in unfinished)
        created = [
            self._create_job(state, block)
            for block in deal(missing, parallelism(self.release.manifests["final"]), submitted)
        ]
        return replace(state, jobs=(*(str(job["metadata"]["name"]) for job in holding), *created))

    def _create_job(self, state: RequestState, block: Sequence[Task]) -> str:
        name = self.release.job_name(block)
        job = self.release.cluster.get("jobs", name)
        # one that has failed was another request's or the study's, and the result of a complete one has been removed since
        if job is not None and job_state(job).ended:
            self.release.cluster.delete("jobs", name)
        if self.release.create_job(self.session.artifacts, block, state.uid):
            log.info("a request's trainings begin", request=state.name, job=name, trainings=len(block))
        return name

    # -- what is kept in the store

    def _trainings(self, reference: TaskReference) -> tuple[Task, ...]:
        try:
            tasks = tuple(self.session.artifacts.load_tasks(reference))
        except ValidationError as error:
            raise ArtifactError(
                f"trainings of a request: are of another version ({error.errors()[0]['msg']}); submit again"
            ) from error
        if any(task.stage != "final" for task in tasks):
            raise ArtifactError("trainings of a request: are of another stage; somebody has changed the store")
        return tasks

    def _key(self, uid: str) -> str:
        return f"{self.session.study.name}/cluster/requests/{checked_part(uid, 'the uid of a request')}.json"

    def _kept(self, state: RequestState) -> Decision | None:
        store = self.session.artifacts.store
        try:
            return Decision.model_validate_json(store.get(self._key(state.uid)))
        except NotFound:
            return None
        except ValidationError as error:
            where = f"{store.url}/{self._key(state.uid)}"
            log.warning("what was decided about a request is damaged", object=where, reason=error.errors()[0]["msg"])
            return Decision(state="refused", reason=f"{where}: is damaged; delete the request and submit it again")

    def _keep(self, state: RequestState, decision: Decision) -> Decision:
        """Keeps a decision, and returns it, or that of another control if it was faster."""
        text = decision.model_dump_json().encode()
        if self.session.artifacts.store.create(self._key(state.uid), text):
            return decision
        return self._kept(state) or decision

    def _ended(self, state: RequestState, how: Literal["done", "failed"]) -> RequestState:
        reference = self.session.artifacts.save_tasks(state.tasks)
        decision = Decision(state=how, reason=state.reason[:LONGEST_REASON], tasks=reference)
        self.session.artifacts.store.put(self._key(state.uid), decision.model_dump_json().encode())
        return replace(state, state=how, jobs=())


def _later(seconds: float) -> float:
    return time.monotonic() + seconds * random.uniform(0.75, 1.25)
