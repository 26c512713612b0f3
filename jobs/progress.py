"""How far the searches of a study are, and in one line why nothing moves when nothing does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jobs.plan import version
from jobs.status import GO_ON, StepState
from shared.artifacts.artifacts import Artifacts
from shared.config.search import Search
from shared.config.task import Task, TuneConfig
from shared.errors import UnavailableError
from shared.log import duration
from shared.search.identity import search_name, searches_of, settings_digest
from shared.search.monitor import SearchSnapshot, read_searches
from shared.search.spending import stages_gpu_seconds

COORDINATOR_SECONDS = 30.0  # a coordinator gives a sign of life every second or two


@dataclass(frozen=True)
class Remedies:
    """What a person can do where nothing moves."""

    go_on: str = GO_ON
    """Where no coordinator is at work."""
    workers: str = "one comes when a slot of `tailfill run` is free, or by `kubectl scale`"
    """Where no worker is alive."""


HERE = Remedies()


@dataclass(frozen=True)
class SearchState:
    """A search that is not committed."""

    step: str
    """Label of its step in the plan."""
    objectives: tuple[str, ...]
    snapshot: SearchSnapshot | None
    """None before it has begun, or while PostgreSQL is away."""
    stall: str | None
    """Why nothing moves; None where something does."""
    seconds_left: float | None
    gpu_budget: tuple[float, float] | None
    """GPU-hours that the whole study has spent, and those that it may spend."""
    waiting: bool = False
    """For an earlier stage, as the stage's own line says."""


def search_states(
    rows: Sequence[StepState], artifacts: Artifacts, url: str, remedies: Remedies = HERE
) -> list[SearchState]:
    """The searches of a study's status that are not committed, in the order of the plan; raises ConfigError where PostgreSQL refuses us.

    `remedies` are those of the place that asks.
    """
    open_rows = [row for row in rows if row.step.stage == "tune" and row.manifest is None]
    if not open_rows:
        return []
    try:
        found = read_searches(url, searches_of(artifacts.study))
    except UnavailableError as error:
        return [SearchState(row.step.label, _search(row).objectives, None, str(error), None, None) for row in open_rows]
    searched = sum(snapshot.gpu_seconds for snapshot in found)
    budgeted = any(_search(row).budget.gpu_hours for row in open_rows)
    spent = searched + stages_gpu_seconds(artifacts) if budgeted else searched
    by_name = {snapshot.name: snapshot for snapshot in found}
    # one whose inputs are not known yet has no name
    named = [(row, name_of_search(row.task, artifacts) if row.task else "") for row in open_rows]
    return [_state(row, by_name.get(name), spent, rows, remedies) for row, name in named]


def _state(
    row: StepState, found: SearchSnapshot | None, spent: float, rows: Sequence[StepState], remedies: Remedies
) -> SearchState:
    search = _search(row)
    if found is None:
        reason, waiting = _not_begun(row, rows, remedies), row.task is None
        return SearchState(row.step.label, search.objectives, None, reason, None, None, waiting)
    limit = search.budget.gpu_hours
    return SearchState(
        row.step.label,
        search.objectives,
        found,
        stall(found, search, remedies),
        seconds_left(found, search, spent),
        None if limit is None else (spent / 3600, limit),
    )


def _search(row: StepState) -> Search:
    return TuneConfig.model_validate_json(json.dumps(row.step.config)).search


def name_of_search(task: Task, artifacts: Artifacts) -> str:
    """Of a task of the stage tune: its search's name in PostgreSQL."""
    config = task.stage_config()
    assert isinstance(config, TuneConfig)
    return search_name(task.study, version("tune"), config, task.inputs, artifacts.generation("tune", task.key))


def _not_begun(row: StepState, rows: Sequence[StepState], remedies: Remedies) -> str:
    if row.task is not None:
        return row.doing.detail if row.doing and row.doing.detail else f"no coordinator has begun it; {remedies.go_on}"
    open_labels = {other.step.label for other in rows if other.manifest is None}
    return f"waits for {', '.join(sorted({needed.label for needed in row.step.needs.values()} & open_labels))}"


def stall(found: SearchSnapshot, search: Search, remedies: Remedies = HERE) -> str | None:
    """Why nothing moves in a search that has begun, or None where something does."""
    away = found.ticked_seconds > COORDINATOR_SECONDS
    silent = f"no coordinator has given a sign of life for {duration(found.ticked_seconds)}"
    if found.closed is not None and not found.running:
        return _closed(found, search) + (f"; {silent}, {remedies.go_on}" if away else "")
    if away:
        running = "; the running trials end, nothing is queued after them" if found.running else ""
        return f"{silent}{running}; {remedies.go_on}"
    if found.running:
        return None
    if found.stale:
        end = "now" if not found.reaped_in else f"in {duration(found.reaped_in)}"
        return f"{_trials(found.stale)} without a sign of life from the worker (the last: {found.lost_worker}); queued again {end}"
    if found.queued and not found.workers:
        return f"{_trials(found.queued)} queued and no worker alive; {remedies.workers}"
    if found.queued:
        return f"{_workers(found.workers)} get ready: training data are built before the first trial"
    return None


def _closed(found: SearchSnapshot, search: Search) -> str:
    if found.settings != settings_digest(search):
        return f"the search was closed under other settings ({found.closed})"
    if found.closed == "complete":
        return "all trials are finished; what was found is yet to be committed"
    said = f"the search is closed: {found.closed}"
    if found.failed > search.max_failures and found.last_failure:
        said += f"; the last failure: {found.last_failure}"
    return said


def seconds_left(found: SearchSnapshot, search: Search, spent_gpu_seconds: float) -> float | None:
    """Until the search ends by its trials or, where that is sooner, by a budget; None while its pace is not known."""
    by_pace = found.seconds_left
    if by_pace is None:
        return None
    ends = [by_pace]
    if search.budget.wall_hours is not None:
        ends.append(max(search.budget.wall_hours * 3600 - found.wall_seconds, 0.0))
    if search.budget.gpu_hours is not None and found.gpu_seconds:
        ends.append(max(search.budget.gpu_hours * 3600 - spent_gpu_seconds, 0.0) / max(found.workers, 1))
    return min(ends)


def describe(searches: Sequence[SearchState]) -> str:
    """A paragraph a search, but for those that wait for an earlier stage."""
    return "\n".join(_paragraph(search) for search in searches if not search.waiting)


def _paragraph(search: SearchState) -> str:
    lines = []
    if (found := search.snapshot) is not None:
        lines = [_trials_line(found, search.objectives), _cost_line(found, search)]
    if search.stall is not None:
        lines.append(f"nothing moves: {search.stall}" if found is None or not found.running else search.stall)
    return f"{search.step}: " + "\n  ".join(lines)


def _trials_line(found: SearchSnapshot, objectives: Sequence[str]) -> str:
    step = f"step {found.position} of {found.steps} ({found.label}): " if found.steps > 1 else ""
    detail = ", ".join(f"{n} {what}" for n, what in ((found.pruned, "pruned"), (found.failed, "failed besides")) if n)
    running = found.running + found.stale
    return (
        f"{step}{found.finished} of {found.wanted} trials done{f' ({detail})' if detail else ''}, "
        f"{running} running, {found.queued} queued, {found.left} left; " + (_bests(found, objectives) or "no value yet")
    )


def _bests(found: SearchSnapshot, objectives: Sequence[str]) -> str:
    """Of several objectives each one's best, which need not be of one trial."""
    said = ", ".join(f"best {name} {best:.4g}" for name, best in zip(objectives, found.bests, strict=False))
    return said if found.front is None else f"{said}, {_trials(found.front)} on the Pareto front"


def _cost_line(found: SearchSnapshot, search: SearchState) -> str:
    gpu = found.gpu_seconds > 0
    used, lost = (found.gpu_seconds, found.gpu_lost_seconds) if gpu else (found.used_seconds, found.lost_seconds)
    parts = [
        f"{_workers(found.workers)} alive",
        f"{used / 3600:.2f} {'GPU' if gpu else 'CPU'}-hours used, {lost / 3600:.2f} of them lost",
    ]
    if search.gpu_budget is not None:
        parts.append("{:.2f} of {:g} GPU-hours of the study's budget spent".format(*search.gpu_budget))
    if found.closed is None:
        left = search.seconds_left
        parts.append("time left not known yet" if left is None else f"about {duration(left)} left")
    return "; ".join(parts)


def _trials(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'}"


def _workers(count: int) -> str:
    return f"{count} worker{'' if count == 1 else 's'}"


def as_json(searches: Sequence[SearchState]) -> dict[str, dict[str, Any]]:
    """The same for a script, by the step's label."""
    found = {}
    for search in searches:
        snapshot = asdict(search.snapshot) if search.snapshot else {}
        snapshot |= (
            {name: getattr(search.snapshot, name) for name in ("best", "left", "finished")} if search.snapshot else {}
        )
        found[search.step] = {
            **snapshot,
            "objective": search.objectives[0],
            "objectives": list(search.objectives),
            "seconds_left": search.seconds_left,
            "stall": search.stall,
            "study_gpu_hours": search.gpu_budget[0] if search.gpu_budget else None,
            "budget_gpu_hours": search.gpu_budget[1] if search.gpu_budget else None,
        }
    return found
