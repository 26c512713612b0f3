"""Describes the progress of a study's searches, and says in one line why nothing moves if nothing does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from shared.artifacts.artifacts import Artifacts
from shared.config.search import Search
from shared.config.stages import TuneConfig
from shared.config.task import Task
from shared.errors import UnavailableError
from shared.log import duration
from shared.pipeline.status import RESUME_HINT, StepState
from shared.search.identity import search_name, searches_of, settings_digest
from shared.search.monitor import SearchSnapshot, read_searches
from shared.search.spending import stages_gpu_seconds

COORDINATOR_SECONDS = 30.0  # without a heartbeat, which a coordinator sends every second or two


@dataclass(frozen=True)
class Hints:
    """Says what a user can do if nothing moves. The defaults are for one machine."""

    resume: str = RESUME_HINT
    """Gives the hint to show if no coordinator is running."""
    workers: str = (
        "one comes from another search, or starts when a slot of `tailfill run` is free, or by `kubectl scale`"
    )
    """Gives the hint to show if no worker is alive."""


LOCAL_HINTS = Hints()


@dataclass(frozen=True)
class SearchState:
    """Holds the state of a search that is not committed."""

    step: str
    """Gives the label of its step in the plan."""
    objectives: tuple[str, ...]
    snapshot: SearchSnapshot | None
    """Holds what the monitor read; None before it has begun, or if PostgreSQL is unavailable."""
    stall: str | None
    """Says why nothing moves; None if something does."""
    seconds_left: float | None
    """Estimates the seconds until it ends; None if its pace is not known."""
    gpu_budget: tuple[float, float] | None
    """Holds the GPU-hours that the whole study has used, and those that it may use; None without such a budget."""
    waiting: bool = False
    """Says whether it waits for an earlier stage, which the line of its step says too."""


def search_states(
    rows: Sequence[StepState], artifacts: Artifacts, url: str, hints: Hints = LOCAL_HINTS
) -> list[SearchState]:
    """Returns the states of the searches that are not committed, in the order of the plan.

    `url` is PostgreSQL's, and `hints` say what the user can do if nothing moves. Raises ConfigError if PostgreSQL rejects the connection.
    """
    open_rows = [row for row in rows if row.step.stage == "tune" and row.manifest is None]
    if not open_rows:
        return []
    try:
        snapshots = read_searches(url, searches_of(artifacts.study))
    except UnavailableError as error:
        return [SearchState(row.step.label, _search(row).objectives, None, str(error), None, None) for row in open_rows]
    searched = sum(snapshot.gpu_seconds for snapshot in snapshots)
    budgeted = any(_search(row).budget.gpu_hours for row in open_rows)
    spent = searched + stages_gpu_seconds(artifacts) if budgeted else searched
    by_name = {snapshot.name: snapshot for snapshot in snapshots}
    # a search has no name before its inputs are known
    named = [(row, name_of_search(row.task, artifacts) if row.task else "") for row in open_rows]
    return [_state(row, by_name.get(name), spent, rows, hints) for row, name in named]


def _state(
    row: StepState, snapshot: SearchSnapshot | None, spent: float, rows: Sequence[StepState], hints: Hints
) -> SearchState:
    search = _search(row)
    if snapshot is None:
        reason, waiting = _why_not_begun(row, rows, hints), row.task is None
        return SearchState(row.step.label, search.objectives, None, reason, None, None, waiting)
    limit = search.budget.gpu_hours
    return SearchState(
        row.step.label,
        search.objectives,
        snapshot,
        stall(snapshot, search, hints),
        seconds_left(snapshot, search, spent),
        None if limit is None else (spent / 3600, limit),
    )


def _search(row: StepState) -> Search:
    assert isinstance(row.step.config, TuneConfig)
    return row.step.config.search


def name_of_search(task: Task, artifacts: Artifacts) -> str:
    """Returns the name that the search of a tune task has in PostgreSQL."""
    assert isinstance(task.config, TuneConfig)
    return search_name(task.study, task.config, task.inputs, artifacts.generation("tune", task.key))


def _why_not_begun(row: StepState, rows: Sequence[StepState], hints: Hints) -> str:
    if row.task is not None:
        detail = row.status.detail if row.status else ""
        return detail or f"no coordinator has begun it; {hints.resume}"
    open_labels = {other.step.label for other in rows if other.manifest is None}
    return f"waits for {', '.join(sorted({needed.label for needed in row.step.needs.values()} & open_labels))}"


def stall(snapshot: SearchSnapshot, search: Search, hints: Hints = LOCAL_HINTS) -> str | None:
    """Returns why nothing moves in a search that has begun, or None if something does."""
    coordinator_lost = snapshot.ticked_seconds > COORDINATOR_SECONDS
    silence = f"no coordinator has sent a heartbeat for {duration(snapshot.ticked_seconds)}"
    if snapshot.closed is not None and not snapshot.running:
        return _why_closed(snapshot, search) + (f"; {silence}, {hints.resume}" if coordinator_lost else "")
    if coordinator_lost:
        running = "; the running trials end, nothing is queued after them" if snapshot.running else ""
        return f"{silence}{running}; {hints.resume}"
    if snapshot.running:
        return None
    if snapshot.stale:
        end = "now" if not snapshot.reaped_in else f"in {duration(snapshot.reaped_in)}"
        return f"{_trials(snapshot.stale)} without a heartbeat from the worker (the last: {snapshot.lost_worker}); queued again {end}"
    if snapshot.queued and not snapshot.workers:
        return f"{_trials(snapshot.queued)} queued and no worker alive; {hints.workers}"
    if snapshot.queued:
        return f"{_workers(snapshot.workers)} starting: training data are prepared before the first trial"
    return None


def _why_closed(snapshot: SearchSnapshot, search: Search) -> str:
    if snapshot.settings != settings_digest(search):
        return f"the search was closed under other settings ({snapshot.closed})"
    if snapshot.closed == "complete":
        return "all trials are finished; their results are not committed yet"
    reason = f"the search is closed: {snapshot.closed}"
    if snapshot.failed > search.max_failures and snapshot.last_failure:
        reason += f"; the last failure: {snapshot.last_failure}"
    return reason


def seconds_left(snapshot: SearchSnapshot, search: Search, spent_gpu_seconds: float) -> float | None:
    """Returns the seconds until the search ends by its trials or, if that is sooner, by a budget; None if its pace is not known."""
    by_pace = snapshot.seconds_left
    if by_pace is None:
        return None
    ends = [by_pace]
    if search.budget.wall_hours is not None:
        ends.append(max(search.budget.wall_hours * 3600 - snapshot.wall_seconds, 0.0))
    if search.budget.gpu_hours is not None and snapshot.gpu_seconds:
        ends.append(max(search.budget.gpu_hours * 3600 - spent_gpu_seconds, 0.0) / max(snapshot.workers, 1))
    return min(ends)


def describe(searches: Sequence[SearchState]) -> str:
    """Returns a paragraph for each search that does not wait for an earlier stage."""
    return "\n".join(_paragraph(search) for search in searches if not search.waiting)


def _paragraph(search: SearchState) -> str:
    lines = []
    if (snapshot := search.snapshot) is not None:
        lines = [_trials_line(snapshot, search.objectives), _cost_line(snapshot, search)]
    if search.stall is not None:
        lines.append(f"nothing moves: {search.stall}" if snapshot is None or not snapshot.running else search.stall)
    return f"{search.step}: " + "\n  ".join(lines)


def _trials_line(snapshot: SearchSnapshot, objectives: Sequence[str]) -> str:
    step = f"step {snapshot.position} of {snapshot.steps} ({snapshot.label}): " if snapshot.steps > 1 else ""
    counts = ((snapshot.pruned, "pruned"), (snapshot.failed, "more failed"))
    detail = ", ".join(f"{n} {what}" for n, what in counts if n)
    running = snapshot.running + snapshot.stale
    return (
        f"{step}{snapshot.finished} of {snapshot.wanted} trials done{f' ({detail})' if detail else ''}, "
        f"{running} running, {snapshot.queued} queued, {snapshot.left} left; "
        + (_best_values(snapshot, objectives) or "no value yet")
    )


def _best_values(snapshot: SearchSnapshot, objectives: Sequence[str]) -> str:
    """Returns the best value of each objective; with several objectives these may be of different trials."""
    text = ", ".join(f"best {name} {best:.4g}" for name, best in zip(objectives, snapshot.bests, strict=False))
    return text if snapshot.front is None else f"{text}, {_trials(snapshot.front)} on the Pareto front"


def _cost_line(snapshot: SearchSnapshot, search: SearchState) -> str:
    gpu = snapshot.gpu_seconds > 0
    used = snapshot.gpu_seconds if gpu else snapshot.used_seconds
    lost = snapshot.gpu_lost_seconds if gpu else snapshot.lost_seconds
    parts = [
        f"{_workers(snapshot.workers)} alive",
        f"{used / 3600:.2f} {'GPU' if gpu else 'CPU'}-hours used, {lost / 3600:.2f} of them lost",
    ]
    if search.gpu_budget is not None:
        parts.append("{:.2f} of {:g} GPU-hours of the study's budget spent".format(*search.gpu_budget))
    if snapshot.closed is None:
        left = search.seconds_left
        parts.append("time left not known yet" if left is None else f"about {duration(left)} left")
    return "; ".join(parts)


def _trials(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'}"


def _workers(count: int) -> str:
    return f"{count} worker{'' if count == 1 else 's'}"


def as_json(searches: Sequence[SearchState]) -> dict[str, dict[str, Any]]:
    """Returns the states for a script, as JSON values by the step's label."""
    by_step = {}
    for search in searches:
        snapshot = asdict(search.snapshot) if search.snapshot else {}
        snapshot |= (
            {name: getattr(search.snapshot, name) for name in ("best", "left", "finished")} if search.snapshot else {}
        )
        by_step[search.step] = {
            **snapshot,
            "objective": search.objectives[0],
            "objectives": list(search.objectives),
            "seconds_left": search.seconds_left,
            "stall": search.stall,
            "study_gpu_hours": search.gpu_budget[0] if search.gpu_budget else None,
            "budget_gpu_hours": search.gpu_budget[1] if search.gpu_budget else None,
        }
    return by_step
