"""Which stages a study needs, and what each depends on: the one place that knows the order of the stages."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from jobs.earlier import Earlier
from shared.artifacts.manifest import Manifest, canonical_digest, task_key
from shared.config.base import Section
from shared.config.resolve import Resolved, resolve
from shared.config.study import Study
from shared.config.task import (
    Arm,
    FinalConfig,
    FinetuneConfig,
    GenerateConfig,
    Input,
    PrepareConfig,
    ReportConfig,
    ReportedExperiment,
    ScoreConfig,
    Stage,
    Task,
    TuneConfig,
    keyed,
)


@dataclass(frozen=True)
class Step:
    """A stage with its config, and the steps whose results it reads, by role. Equal steps are one."""

    stage: Stage
    experiment: str | None
    label: str
    """For people: `final synthetic 3`."""
    config: dict[str, Any]
    needs: Mapping[str, Step]
    earlier: Earlier | None = None
    """The search of another study that is its input `warm_start`."""

    @cached_property
    def id(self) -> str:
        """Equal for steps that would do the same; known before anything has run, unlike the key."""
        needs = {role: step.id for role, step in self.needs.items()}
        if self.earlier is not None:
            needs["warm_start"] = self.earlier.name
        return canonical_digest([self.stage, keyed(self.stage, self.config), needs])


def version(stage: Stage) -> int:
    """The VERSION of a stage's module."""
    return int(importlib.import_module(f"jobs.{stage}").VERSION)


def make_task(study: Study, step: Step, committed: Mapping[str, Manifest]) -> Task:
    """The step's task, once everything that it needs is committed (manifests by step id).

    Raises ConfigError where the search of another study that it begins from is not there.
    """
    inputs = {}
    for role, needed in step.needs.items():
        manifest = committed[needed.id]
        inputs[role] = Input(stage=manifest.stage, key=manifest.key, digest=manifest.digest)
    if step.earlier is not None:
        inputs["warm_start"] = step.earlier.committed()
    return Task(
        study=study.name,
        stage=step.stage,
        key=task_key(step.stage, version(step.stage), keyed(step.stage, step.config), inputs),
        experiment=step.experiment,
        config=step.config,
        inputs=inputs,
        resources=study.resources,
    )


def plan(
    study: Study, source_digest: str | None = None, earlier: Mapping[str, Earlier] = MappingProxyType({})
) -> list[Step]:
    """All steps in an order in which each stands behind those that it needs; the report is last.

    `source_digest` is the data's fingerprint (`shared.data.sources.digest.source_digest`), `earlier` what `earlier_searches` found.
    """
    steps: dict[str, Step] = {}

    def add(
        stage: Stage,
        experiment: str | None,
        label: str,
        config: Section,
        needs: Mapping[str, Step],
        earlier: Earlier | None = None,
    ) -> Step:
        step = Step(stage, experiment, label, _json(config), needs, earlier)
        return steps.setdefault(step.id, step)

    source = PrepareConfig(dataset=study.dataset, source_digest=source_digest, rare=study.rare, seed=study.seed)
    prepare = add("prepare", None, "prepare", source, {})
    experiments = resolve(study)
    tunes: dict[str, Step | None] = {}  # by experiment: where its parameters come from
    reported: dict[str, Step] = {"prepare": prepare}
    data_of = {e.name: _data_steps(study, e, prepare, add) for e in experiments}
    for experiment in experiments:
        name, data = experiment.name, data_of[experiment.name]
        inherited = tunes.get(experiment.parameters_from) if experiment.parameters_from else None
        tunes[name] = inherited
        if experiment.search.trials:
            config = TuneConfig(
                arm=arm_of(experiment), pinned=experiment.pinned, search=experiment.search, seed=experiment.seed
            )
            needs = data | ({"parameters": inherited} if inherited else {})
            warm, begins_from = experiment.search.warm_start_from or "", None
            if "/" in warm:
                begins_from = earlier.get(warm, Earlier(warm))
            elif warm:
                needs |= {"warm_start": reported[f"tune/{warm}"]}
            tunes[name] = add("tune", name, f"tune {name}", config, needs, begins_from)
            reported[f"tune/{name}"] = tunes[name] or prepare
        reported |= {f"{role}/{name}": step for role, step in data.items() if role != "prepare"}
    for repeat in range(max(e.final.seeds for e in experiments)):
        for experiment in experiments:
            if repeat < experiment.final.seeds:
                reported[f"final/{experiment.name}/{repeat}"] = _final(
                    experiment, repeat, data_of[experiment.name], tunes, add
                )
    add("report", None, "report", _report_config(study, experiments), reported)
    return list(steps.values())


def _data_steps(study: Study, experiment: Resolved, prepare: Step, add: Any) -> dict[str, Step]:
    """The steps that make what an arm trains on, by role."""
    if experiment.images == "real":
        return {"prepare": prepare}
    name, seed, rare = experiment.name, study.seed, experiment.rare
    finetune = add(
        "finetune",
        name,
        "finetune",
        FinetuneConfig(finetune=experiment.finetune, rare=rare, seed=seed),
        {"prepare": prepare},
    )
    generate = add(
        "generate",
        name,
        "generate",
        GenerateConfig(generate=experiment.generate, rare=rare, seed=seed),
        {"prepare": prepare, "finetune": finetune},
    )
    judges = ScoreConfig(
        score=experiment.score,
        classifier=experiment.classifier,
        augmentation=experiment.augmentation,
        training=experiment.training,
        seed=seed,
    )
    score = add("score", name, "score", judges, {"prepare": prepare, "generate": generate})
    return {"prepare": prepare, "finetune": finetune, "generate": generate, "score": score}


def arm_of(experiment: Resolved) -> Arm:
    """The part of an experiment that its search varies and its final trainings repeat."""
    real = experiment.images == "real"
    return Arm(
        rare=experiment.rare,
        accept=None if real else experiment.accept,
        replicates=1 if real else experiment.generate.replicates,
        classifier=experiment.classifier,
        augmentation=experiment.augmentation,
        images=experiment.images,
        training=experiment.training,
        synthetic=None if real else experiment.synthetic,
    )


def _final(
    experiment: Resolved, repeat: int, data: dict[str, Step], tunes: Mapping[str, Step | None], add: Any
) -> Step:
    name = experiment.name
    tune = tunes[name]
    role = "tune" if experiment.search.trials else "parameters"
    config = FinalConfig(
        arm=arm_of(experiment), pinned=experiment.pinned, final=experiment.final, seed=experiment.seed, repeat=repeat
    )
    step: Step = add("final", name, f"final {name} {repeat}", config, data | ({role: tune} if tune else {}))
    return step


def _report_config(study: Study, experiments: tuple[Resolved, ...]) -> ReportConfig:
    return ReportConfig(
        study=study.name,
        seed=study.seed,
        verdict=study.verdict,
        rare=study.rare,
        experiments=tuple(
            ReportedExperiment(
                name=full.name,
                title=own.title,
                paper_row=own.paper_row,
                images=full.images,
                augmentation=full.augmentation,
                parameters_from=full.parameters_from,
            )
            for own, full in zip(study.experiments, experiments, strict=True)
        ),
    )


def _json(config: Section) -> dict[str, Any]:
    dumped: dict[str, Any] = config.model_dump(mode="json", by_alias=True)
    return dumped
