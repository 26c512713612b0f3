"""Carries out what people request of a release by ConfigMaps: final trainings, as Jobs beside those of the study, and the end of such requests.

A request is decided once. The decision is kept in the store, with the trainings that it stands for, so that a control that starts later neither
decides anew nor trains with parameters that were found since; it is removed with its request. The rest is read from the store and from the Jobs,
whose label names their request.
"""

from __future__ import annotations

import random
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import ValidationError, model_validator

from shared.artifacts.manifest import Manifest
from shared.artifacts.store import NotFound
from shared.config.base import Section
from shared.config.stages import FinalConfig
from shared.config.task import Task, TaskReference
from shared.errors import ArtifactError, ConfigError, InputError, UnavailableError
from shared.kube.api import Object
from shared.kube.errors import ClusterError
from shared.kube.manifests import SUBMITTED, held_tasks, parallelism, stages_name
from shared.kube.mirror import Mirror
from shared.kube.release import Release
from shared.kube.requests import INSTANCE, REQUEST, WITHDRAW, read_request, read_withdrawal, what_is_requested
from shared.kube.states import job_state
from shared.log import Log
from shared.names import checked_part, shown
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
    created: str
    """Gives the time at which it was created, as an ISO 8601 time."""
    state: Literal["waiting", "accepted", "refused", "failed", "done"]
    reason: str = ""
    """Says why it waits, was refused or has failed."""
    tasks: tuple[Task, ...] = ()
    committed: frozenset[str] = frozenset()
    """Holds the keys of its trainings that are committed."""
    jobs: tuple[str, ...] = ()
    """Names the Jobs that work on it."""
    waits: bool = False
    """Says whether it has trainings without a Job."""
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


class _Look:
    """Holds what one look at the release has found, and the Jobs that were created since."""

    def __init__(self, jobs: Sequence[Object], committed: Collection[str]) -> None:
        self.jobs = jobs
        self.committed = frozenset(committed)
        """Holds the keys of all final trainings that are committed."""
        held = {str(job["metadata"]["name"]): held_tasks(job) for job in jobs if not job_state(job).ended}
        self.active = {
            name: {key for stage, key in tasks if stage == "final"}
            for name, tasks in held.items()
            if any(stage == "final" for stage, _ in tasks)
        }
        """Maps the names of the Jobs of final trainings that have not ended, whoever wants them, to the keys of these."""

    def holding(self, keys: Collection[str]) -> list[str]:
        """Returns the names of the Jobs that work on one of the trainings."""
        return [name for name, held in self.active.items() if not held.isdisjoint(keys)]


class FinalRequests:
    """Follows the requests of a release, which the API server tells, and creates their Jobs."""

    def __init__(self, release: Release, session: Session) -> None:
        self.release, self.session = release, session
        self.problem = ""
        """Says why requests cannot be read, if they cannot."""
        self._mirror = Mirror(release.cluster, "configmaps", REQUEST)
        self._found: dict[str, Object] = {}
        """Holds the ConfigMaps by uid."""
        self._states: dict[str, RequestState] = {}
        """Holds the states by the uid of the ConfigMap."""
        self._decided: set[str] | None = None
        """Holds the uids of the requests of which the store has a decision; None before they are listed."""
        self._not_before = self._next_look = 0.0

    def states(self) -> list[RequestState]:
        """Returns the state of each request, the oldest first; another thread may call it."""
        return sorted(self._states.values(), key=lambda each: (each.created, each.name))

    @property
    def waiting(self) -> int:
        """Returns the number of requests that have trainings without a Job, since as many Jobs are active as may be."""
        return sum(each.waits for each in self._states.values())

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
            self._read()
            new = self._found.keys() - self._states.keys()
            self._states |= {uid: _new_state(self._found[uid]) for uid in new}
            if new or time.monotonic() >= self._next_look:
                self._look(jobs)
        except (UnavailableError, InputError) as error:
            self._not_before = _later(RETRY_SECONDS)
            if self.problem != str(error):
                log.warning("requests for final trainings cannot be read", reason=str(error))
            self.problem = str(error)

    def _read(self) -> None:
        """Reads the requests, and removes the decisions about those that are gone."""
        store = self.session.artifacts.store
        if self._decided is None:  # before the requests are read, so that none of them is younger
            self._decided = {key.rpartition("/")[2].removesuffix(".json") for key in store.list(self._folder)}
        self._found = {str(each["metadata"]["uid"]): each for each in self._mirror.objects()}
        self.problem = ""
        for uid in self._states.keys() - self._found.keys():
            del self._states[uid]
        for uid in self._decided - self._found.keys():
            store.delete(self._key(uid))
            self._decided.discard(uid)

    def _look(self, jobs: Sequence[Object]) -> None:
        self._next_look = _later(LOOK_SECONDS)
        due = [
            each
            for each in self.states()
            if each.state in ("waiting", "accepted") and time.monotonic() >= each.not_before
        ]
        due.sort(key=lambda each: what_is_requested(self._found[each.uid]) != WITHDRAW)
        look = _Look(jobs, self.session.artifacts.committed("final")) if due else None
        for each in due:
            if look is not None and each.uid in self._found:  # else it was withdrawn
                self._states[each.uid] = self._attempt(each, look)

    def _attempt(self, state: RequestState, look: _Look) -> RequestState:
        """Returns the state after the next step of a request, which says so if a service or the cluster holds it up."""
        try:
            return self._carry_out(state, look) if state.tasks else self._begin(state, look)
        except (UnavailableError, ClusterError) as error:
            if state.reason != _line(error):
                log.warning("a request is held up", request=state.name, reason=str(error))
            return replace(state, reason=_line(error), not_before=_later(RETRY_SECONDS))
        except InputError as error:  # what the store has of it is damaged
            log.warning("a request cannot be carried out", request=state.name, reason=str(error))
            return replace(state, state="failed", reason=_line(error), jobs=(), waits=False)

    def _begin(self, state: RequestState, look: _Look) -> RequestState:
        decision = self._kept(state) or self._decide(state)
        if decision is None:
            return replace(state, state="done")
        if decision.state == "refused":
            return replace(state, state="refused", reason=decision.reason)
        assert decision.tasks is not None
        tasks = self._trainings(decision.tasks)
        decided = replace(state, state=decision.state, reason=decision.reason, tasks=tasks)
        if decision.state == "accepted":
            return self._carry_out(decided, look)
        keys = frozenset(task.key for task in tasks)
        return replace(decided, committed=keys if decision.state == "done" else keys & look.committed)

    def _decide(self, state: RequestState) -> Decision | None:
        """Decides about a request and keeps that; returns None if it withdrew another one.

        Raises UnavailableError if a service does not answer, so that it stays open.
        """
        found = self._found[state.uid]
        if self._is_of_another_release(found):
            reason = f"configmap {state.name}: is for another release, whose control carries it out"
            return Decision(state="refused", reason=reason)
        try:
            if what_is_requested(found) == WITHDRAW:
                self._withdraw(found)
                return None
            request = read_request(found, self.release.name, self.session.study.name)
            tasks = final_tasks(self.session, request)
        except InputError as error:
            if isinstance(error, ClusterError):
                raise
            log.warning("a request is refused", request=state.name, reason=str(error))
            return self._keep(state, Decision(state="refused", reason=_line(error)))
        log.info("a request is accepted", request=state.name, trainings=len(tasks))
        return self._keep(state, Decision(state="accepted", tasks=self.session.artifacts.save_tasks(tasks)))

    def _is_of_another_release(self, found: Object) -> bool:
        """Returns whether the namespace has another release for which the request is."""
        named = (found["metadata"].get("labels") or {}).get(INSTANCE)
        if named in (None, "", self.release.name):
            return False
        return bool(self.release.cluster.list("configmaps", field_selector=f"metadata.name={stages_name(named)}"))

    def _withdraw(self, found: Object) -> None:
        """Deletes the request that a ConfigMap withdraws, and that ConfigMap; raises ConfigError if there is none."""
        withdrawn, name = read_withdrawal(found, self.release.name), found["metadata"]["name"]
        uids = {each["metadata"]["name"]: uid for uid, each in self._found.items()}
        if withdrawn not in uids or self._is_of_another_release(self._found[uids[withdrawn]]):
            raise ConfigError(f"configmap {name}: there is no request {shown(withdrawn)}; `tailfill status` names them")
        log.info("a request is withdrawn", request=withdrawn)
        for each in dict.fromkeys((withdrawn, name)):
            self.release.cluster.delete("configmaps", each)
            del self._found[uids[each]]

    def _carry_out(self, state: RequestState, look: _Look) -> RequestState:
        """Returns the state after a look at what is committed, and the creation of missing Jobs."""
        keys = {task.key for task in state.tasks}
        left = keys - state.committed - look.committed
        state = replace(state, committed=frozenset(keys - left), reason="", waits=False)
        if not left:
            log.info("a request is done", request=state.name)
            return self._ended(state, "done")
        for job in (job for job in look.jobs if job["metadata"]["labels"].get(SUBMITTED) == state.uid):
            phase, name = job_state(job), job["metadata"]["name"]
            if phase.ended and any(key in left for _, key in held_tasks(job)):
                if phase.phase == "failed" and self.release.begin_again(job):
                    continue
                said = f"{phase.reason} {self.release.failure(job)}" if phase.phase == "failed" else "committed nothing"
                log.warning("a request has failed", request=state.name, job=name, reason=said)
                return self._ended(replace(state, reason=f"{name}: {said.strip()}; submit again"), "failed")
        held = set[str]().union(*look.active.values())
        missing = [task for task in state.tasks if task.key in left - held]
        most = parallelism(self.release.manifests["final"])
        for block in deal(missing, most, len(look.active)):
            look.active[self._create_job(state, block)] = {task.key for task in block}
        jobs = look.holding(left)
        waits = not left <= set[str]().union(*look.active.values())
        reason = (
            "" if jobs else f"{most} Jobs of final trainings are active, as many as stages.final.parallelism allows"
        )
        return replace(state, jobs=tuple(jobs), waits=waits, reason=reason)

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

    @property
    def _folder(self) -> str:
        """Returns what the keys of the decisions begin with: releases may share a store and a study."""
        release = f"{checked_part(self.release.cluster.namespace, 'the namespace')}/{checked_part(self.release.name, 'the release')}"
        return f"{self.session.study.name}/cluster/requests/{release}/"

    def _key(self, uid: str) -> str:
        return f"{self._folder}{checked_part(uid, 'the uid of a request')}.json"

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
        assert self._decided is not None
        self._decided.add(state.uid)
        if self.session.artifacts.store.create(self._key(state.uid), text):
            return decision
        return self._kept(state) or decision

    def _ended(self, state: RequestState, how: Literal["done", "failed"]) -> RequestState:
        reference = self.session.artifacts.save_tasks(state.tasks)
        decision = Decision(state=how, reason=state.reason, tasks=reference)
        self.session.artifacts.store.put(self._key(state.uid), decision.model_dump_json().encode())
        return replace(state, state=how, jobs=())


def _new_state(found: Object) -> RequestState:
    metadata = found["metadata"]
    return RequestState(
        str(metadata["name"]), str(metadata["uid"]), str(metadata.get("creationTimestamp", "")), "waiting"
    )


def _line(error: Exception) -> str:
    """Returns what an error says on one line, and not at any length."""
    return " ".join(str(error).split())[:LONGEST_REASON]


def _later(seconds: float) -> float:
    return time.monotonic() + seconds * random.uniform(0.75, 1.25)
