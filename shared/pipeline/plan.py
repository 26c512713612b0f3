"""Plans which stages a study needs, and what each depends on. Only this module knows the order of the stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

from shared.artifacts.keys import canonical_digest, keyed, named_weights, new_task
from shared.artifacts.manifest import Manifest
from shared.config.apply_parameters import inherited
from shared.config.paths import with_parameters
from shared.config.resolve import ResolvedExperiment, ResolvedStudy, generation_settings
from shared.config.stages import (
    STAGES,
    Arm,
    FinalConfig,
    FinetuneConfig,
    GenerateConfig,
    PrepareConfig,
    ReportConfig,
    ReportedExperiment,
    ScoreConfig,
    Stage,
    StageConfig,
    TrialImages,
    TuneConfig,
    WeightsConfig,
    WithWeights,
)
from shared.config.task import Input, Task
from shared.pipeline.warm_start import WarmStart
from shared.weights.roles import BASE, JUDGES, Value, hub_base, hub_models, role_of, searched_values


@dataclass(frozen=True)
class Step:
    """A stage with its config, and the steps whose results it reads, by role. The plan has equal steps once."""

    stage: Stage
    experiment: str | None
    label: str
    """Its name in messages, e.g. `final synthetic 3`."""
    config: StageConfig
    needs: Mapping[str, Step]
    from_search: tuple[str, ...] = ()
    """Paths of the config whose values are the best that the search in the role `tune` found. That search is not an input of the task then,
    since images that a trial generated with the same values are the same images."""
    warm_start: WarmStart | None = None
    """The search of another study that is its input `warm_start`."""

    @cached_property
    def id(self) -> str:
        """An identifier that is equal for steps with the same work. Unlike the key, it is known before anything has run."""
        needs = {role: step.id for role, step in self.needs.items()}
        if self.warm_start is not None:
            needs["warm_start"] = self.warm_start.name
        return canonical_digest([self.stage, keyed(self.stage, self.config), needs, self.from_search])


def make_task(study: ResolvedStudy, step: Step, committed: Mapping[str, Manifest]) -> Task:
    """Returns the step's task, given the manifests of all steps that it needs, by step id.

    Raises ConfigError if its warm start, a search of another study, is not committed.
    """
    manifests = {role: committed[needed.id] for role, needed in step.needs.items()}
    config = step.config
    if step.from_search:
        best = manifests.pop("tune").summary["parameters"]
        config = with_parameters(config, {path: best[path] for path in step.from_search if path in best})
    inputs = {role: Input(stage=m.stage, key=m.key, digest=m.digest) for role, m in manifests.items()}
    if step.warm_start is not None:
        inputs["warm_start"] = step.warm_start.committed()
    return new_task(study.name, step.stage, config, inputs, study.resources, step.experiment)


def plan(
    study: ResolvedStudy,
    source_digest: str | None = None,
    weights: Mapping[str, str] = MappingProxyType({}),
    warm_starts: Mapping[str, WarmStart] = MappingProxyType({}),
) -> list[Step]:
    """Returns all steps, each after those that it needs; the report is last.

    `source_digest` is the data's digest (`shared.data.sources.digest.source_digest`), and `weights` has the digests of weights by location
    (`shared.weights.digests.weight_digests`); without them, keys depend on names in place of contents. `warm_starts` is the result of
    `find_warm_starts`.
    """
    return _Planner(study, source_digest, weights, warm_starts).plan()


@dataclass
class _ParameterSource:
    """Where an experiment's parameters come from."""

    tune: Step | None = None
    """Its own search, or the one whose parameters it takes over."""
    from_search: tuple[str, ...] = ()
    """The paths of `generate` among the parameters."""
    searched: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    """The values between which a search chooses, for the paths that name weights."""


class _Planner:
    """Builds the plan, experiment by experiment, since each may use steps of those above it."""

    def __init__(
        self,
        study: ResolvedStudy,
        source_digest: str | None,
        weights: Mapping[str, str],
        warm_starts: Mapping[str, WarmStart],
    ) -> None:
        self.study, self.weights, self.warm_starts = study, weights, warm_starts
        self.steps: dict[str, Step] = {}
        self.sources: dict[str | None, _ParameterSource] = {None: _ParameterSource()}
        rare, seed = study.written.rare, study.seed
        config = PrepareConfig(dataset=study.dataset, source_digest=source_digest, rare=rare, seed=seed)
        self.prepare = self._add(Step("prepare", None, "prepare", config, {}))

    def plan(self) -> list[Step]:
        experiments = self.study.experiments
        reported: dict[str, Step] = {"prepare": self.prepare}
        data_of = {}
        for experiment in experiments:  # the plan's first steps get the first free slots: those that most others need
            if experiment.images != "real":
                self._generator(experiment)
                if not generation_settings(experiment) and experiment.parameters_from is None:
                    self._images(experiment, _ParameterSource())
        for experiment in experiments:
            source = self._search(experiment)
            data = data_of[experiment.name] = self._images(experiment, source)
            roles = {role: step for role, step in data.items() if role != "prepare"}
            if experiment.search.trials and source.tune is not None:
                roles["tune"] = source.tune
            reported |= {f"{role}/{experiment.name}": step for role, step in roles.items()}
        for repeat in range(max(e.final.seeds for e in experiments)):
            for experiment in experiments:
                if repeat < experiment.final.seeds:
                    step = self._final(experiment, repeat, data_of[experiment.name])
                    reported[f"final/{experiment.name}/{repeat}"] = step
        for step in self.steps.values():
            if step.stage == "weights":
                reported[step.label.replace(" ", "/")] = step
        self._add(Step("report", None, "report", _report_config(self.study), reported))
        # hub weights need no other step, and a wrong name or revision should fail before hours of work
        return sorted(self.steps.values(), key=lambda step: step.stage not in ("prepare", "weights"))

    def _add(self, step: Step) -> Step:
        """Adds a step and returns it, or returns the equal one that the plan already has."""
        if isinstance(step.config, WithWeights):
            named = named_weights(step.config, self.weights)
            step = replace(step, config=step.config.model_copy(update={"weights": named}))
        return self.steps.setdefault(step.id, step)

    def _search(self, experiment: ResolvedExperiment) -> _ParameterSource:
        """Adds the experiment's search, if it has one, and returns where its parameters come from."""
        above = self.sources[experiment.parameters_from]
        taken_over = tuple(inherited(dict.fromkeys(above.from_search), experiment.pinned))
        searched_above = inherited(above.searched, experiment.pinned)
        own = {p: searched_above.get(p, ()) + values for p, values in searched_values(experiment).items()}
        source = self.sources[experiment.name] = _ParameterSource(above.tune, taken_over, searched_above | own)
        if experiment.search.trials:
            searched = generation_settings(experiment)
            # if the search varies how images are generated, each trial has its own made
            data = self._generator(experiment) if searched else self._images(experiment, source)
            needs = data | self._models(experiment) | ({"parameters": above.tune} if above.tune else {})
            if searched:
                needs |= self._judges(_judges_of(self.study, experiment))
            name, warm_start = experiment.search.warm_start_from, None
            if name and "/" in name:
                warm_start = self.warm_starts.get(name, WarmStart(name))
            elif name and (tune := self.sources[name].tune):
                needs["warm_start"] = tune
            config = _tune_config(self.study, experiment)
            label = f"tune {experiment.name}"
            source.tune = self._add(Step("tune", experiment.name, label, config, needs, warm_start=warm_start))
            source.from_search += tuple(path for path in searched if path not in taken_over)
        return source

    def _weights(self, config: WeightsConfig) -> Step:
        at = f"@{config.revision[:8]}" if config.revision else ""
        return self._add(Step("weights", None, f"weights {config.name}{at}", config, {}))

    def _models(self, experiment: ResolvedExperiment) -> dict[str, Step]:
        """Returns the steps that download the weights from which an arm's classifier may start, by role."""
        named = hub_models(experiment.classifier, self.sources[experiment.name].searched)
        return {role_of(config.name): self._weights(config) for config in named}

    def _judges(self, config: ScoreConfig) -> dict[str, Step]:
        named = hub_models(config.judge, {})
        return {JUDGES: self._weights(named[0])} if named else {}

    def _base(self, experiment: ResolvedExperiment) -> dict[str, Step]:
        named = hub_base(experiment.finetune)
        return {BASE: self._weights(named)} if named else {}

    def _generator(self, experiment: ResolvedExperiment) -> dict[str, Step]:
        """Adds the experiment's generator, and returns the steps that `generate` reads, by role."""
        config = FinetuneConfig(finetune=experiment.finetune, rare=experiment.rare, seed=self.study.seed)
        base = self._base(experiment)
        needs = {"prepare": self.prepare} | base
        finetune = self._add(Step("finetune", experiment.name, "finetune", config, needs))
        return {"prepare": self.prepare, "finetune": finetune} | base

    def _images(self, experiment: ResolvedExperiment, source: _ParameterSource) -> dict[str, Step]:
        """Adds the steps that make the images that an arm trains on, and returns them by role."""
        if experiment.images == "real":
            return {"prepare": self.prepare}
        needs = self._generator(experiment)
        made_from = {role: step for role, step in needs.items() if role != BASE}
        if source.from_search and source.tune:
            needs = needs | {"tune": source.tune}
        config = GenerateConfig(
            generate=experiment.generate,
            base=experiment.finetune.base_location,
            rare=experiment.rare,
            seed=self.study.seed,
        )
        own = f" {experiment.name}" if source.from_search else ""
        generate = self._add(Step("generate", experiment.name, f"generate{own}", config, needs, source.from_search))
        judges = _judges_of(self.study, experiment)
        judged = {"prepare": self.prepare, "generate": generate} | self._judges(judges)
        score = self._add(Step("score", experiment.name, f"score{own}", judges, judged))
        return {**made_from, "generate": generate, "score": score}

    def _final(self, experiment: ResolvedExperiment, repeat: int, data: dict[str, Step]) -> Step:
        name, tune = experiment.name, self.sources[experiment.name].tune
        role = "tune" if experiment.search.trials else "parameters"
        config = FinalConfig(
            arm=arm_of(experiment),
            pinned=experiment.pinned,
            final=experiment.final,
            seed=experiment.seed,
            repeat=repeat,
        )
        needs = data | self._models(experiment) | ({role: tune} if tune else {})
        return self._add(Step("final", name, f"final {name} {repeat}", config, needs))


def _judges_of(study: ResolvedStudy, experiment: ResolvedExperiment) -> ScoreConfig:
    """Returns the config of the judges of an experiment's images: the study's, so that arms that share images share their scores too."""
    return ScoreConfig(
        score=experiment.score,
        classifier=study.written.classifier,
        augmentation=study.written.augmentation,
        training=study.written.training,
        seed=study.seed,
    )


def arm_of(experiment: ResolvedExperiment) -> Arm:
    """Returns the part of an experiment that its search varies and its final trainings repeat."""
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


def _tune_config(study: ResolvedStudy, experiment: ResolvedExperiment) -> TuneConfig:
    arm, images = arm_of(experiment), None
    if generation_settings(experiment):
        arm = arm.model_copy(update={"generate": experiment.generate})
        images = TrialImages(
            base=experiment.finetune.base_location,
            judges=_judges_of(study, experiment),
            seed=study.seed,
            versions={"generate": STAGES["generate"].version, "score": STAGES["score"].version},
        )
    return TuneConfig(arm=arm, images=images, pinned=experiment.pinned, search=experiment.search, seed=experiment.seed)


def _report_config(study: ResolvedStudy) -> ReportConfig:
    reported = ReportedExperiment.model_fields
    return ReportConfig(
        study=study.name,
        seed=study.seed,
        verdict=study.verdict,
        rare=study.written.rare,
        experiments=tuple(
            ReportedExperiment(**{name: getattr(experiment, name) for name in reported})
            for experiment in study.experiments
        ),
    )
