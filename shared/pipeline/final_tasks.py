"""Finds the final trainings that a person requests: with the best parameters found so far, or with given ones.

If the search is complete, these are the study's own trainings, with the same key, Job and result. Otherwise they are additional ones, which
are kept in the store and are not in the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from shared.artifacts.keys import new_task
from shared.artifacts.manifest import Manifest
from shared.config.apply_parameters import apply_parameters, inherited
from shared.config.paths import parameters_of
from shared.config.seeds import repetition_seed
from shared.config.stages import Arm, FinalConfig, TuneConfig
from shared.config.task import Input, Task
from shared.errors import ConfigError, InputError
from shared.kube.requests import SubmitRequest
from shared.log import Log
from shared.names import shown
from shared.pipeline.plan import Step, make_task
from shared.pipeline.search_status import name_of_search
from shared.pipeline.session import Session
from shared.pipeline.status import StepState, states

MOST_TRAININGS = 1000  # of a request; control holds their tasks in memory

log = Log("control")


def final_tasks(session: Session, request: SubmitRequest) -> list[Task]:
    """Returns one task per experiment and repetition.

    Raises ConfigError for an unknown experiment or too many trainings, and InputError if data or parameters are missing.
    """
    names = [experiment.name for experiment in session.study.experiments]
    if request.experiment is not None:
        session.study.experiment(request.experiment)
    given = request.parameters or {}
    for path in given.keys() - parameters_of(Arm, given).keys():  # which a training would not read
        raise ConfigError(f"--params: {shown(path)} is none; paths begin with {', '.join(sorted(Arm.model_fields))}")
    requested = [name for name in names if request.experiment in (None, name)]
    wanted = sum(request.seeds or session.study.experiment(name).final.seeds for name in requested)
    if wanted > MOST_TRAININGS:
        raise ConfigError(f"--seeds: {wanted:,} trainings in all; a request has at most {MOST_TRAININGS:,}")
    rows = states(session.study, session.steps, session.artifacts)
    return [task for name in requested for task in _tasks_of(session, name, request, rows)]


def _tasks_of(session: Session, experiment: str, request: SubmitRequest, rows: Sequence[StepState]) -> list[Task]:
    # equal experiments share their steps, so only the roles in the report's needs have the name of each experiment
    roles = session.steps[-1].needs
    own = [step for role, step in roles.items() if role.startswith(f"final/{experiment}/")]
    seed = session.study.experiment(experiment).seed
    steps = [_repeat(own[number % len(own)], number, seed) for number in range(request.seeds or len(own))]
    committed = {row.step.id: row.manifest for row in rows if row.manifest is not None}
    needed = {step.id: step for each in steps for role, step in each.needs.items() if role != "tune"}
    if missing := sorted(step.label for id_, step in needed.items() if id_ not in committed):
        raise InputError(
            f"experiment {experiment}: there is nothing to train on yet: {', '.join(missing)} not committed; "
            "`tailfill status` shows the study's progress"
        )
    tune = own[0].needs.get("tune")
    if request.parameters is None and (tune is None or tune.id in committed):
        return [make_task(session.study, step, committed) for step in steps]
    parameters = request.parameters
    if parameters is None:
        assert tune is not None
        assert own[0].from_search is not None
        parameters = inherited(_best_so_far(session, tune, rows), own[0].from_search.without)
        log.info("best parameters so far", experiment=experiment, parameters=parameters)
    return [_task_with(session, step, experiment, parameters, committed) for step in steps]


def _repeat(step: Step, number: int, seed: int) -> Step:
    """Returns the step of a repetition, which trains with the best parameters of the whole search, not with those of its own repetition."""
    config = _config(step).model_copy(update={"repeat": number, "seed": repetition_seed(seed, number)})
    found = step.from_search and replace(step.from_search, repetition=None)
    return replace(step, config=config, from_search=found)


def _config(step: Step) -> FinalConfig:
    assert isinstance(step.config, FinalConfig)
    return step.config


def _task_with(
    session: Session, step: Step, experiment: str, parameters: Mapping[str, Any], committed: Mapping[str, Manifest]
) -> Task:
    config = _config(step).model_copy(update={"parameters": dict(parameters)})
    arm = apply_parameters(
        config.arm, config.parameters
    )  # raises for a value that is not allowed, before a Job is created
    if not arm.takes_all and "score" not in step.needs:
        raise ConfigError(
            f"--params: choose among the generated images of {experiment}, which the study does not score since it takes all of them; "
            "leave accept and synthetic.groups out, or set accept in the study"
        )
    inputs = {
        role: Input(stage=m.stage, key=m.key, digest=m.digest)
        for role, needed in step.needs.items()
        if role != "tune" and (m := committed[needed.id])
    }
    return new_task(session.study.name, "final", config, inputs, session.study.resources, experiment)


def _best_so_far(session: Session, tune: Step, rows: Sequence[StepState]) -> dict[str, Any]:
    """Returns the parameters that a search's coordinator would commit now: those that it takes over, and the best that it has found.

    Raises InputError if the search has no complete trial.
    """
    from shared.search.results import best_so_far

    row = next(row for row in rows if row.step.id == tune.id)
    if row.manifest is not None:
        best: dict[str, Any] = row.manifest.summary["parameters"]
        return best
    config = tune.config
    assert isinstance(config, TuneConfig)
    taken_over = _best_so_far(session, tune.needs["parameters"], rows) if "parameters" in tune.needs else {}
    own = None
    if row.task is not None:
        own = best_so_far(session.database_url, name_of_search(row.task, session.artifacts), config.search)
    if own is None:
        raise InputError(
            f"{tune.label}: has no complete trial yet, so there are no best parameters; wait for one, or name some with --params"
        )
    return inherited(taken_over, config.pinned) | own
