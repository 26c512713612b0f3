"""Which stages a study needs, and what each depends on: the one place that knows the order of the stages."""

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
    """A stage with its config, and the steps whose results it reads, by role. Equal steps are one."""

    stage: Stage
    experiment: str | None
    label: str
    """For people: `final synthetic 3`."""
    config: StageConfig
    needs: Mapping[str, Step]
    from_search: tuple[str, ...] = ()
    """Paths of the config whose values are the best that the search in the role `tune` found. That search is no input then: images made
    with the same values by a trial are the same images."""
    earlier: WarmStart | None = None
    """The search of another study that is its input `warm_start`."""

    @cached_property
    def id(self) -> str:
        """Equal for steps that would do the same; known before anything has run, unlike the key."""
        needs = {role: step.id for role, step in self.needs.items()}
        if self.earlier is not None:
            needs["warm_start"] = self.earlier.name
        return canonical_digest([self.stage, keyed(self.stage, self.config), needs, self.from_search])


def make_task(study: ResolvedStudy, step: Step, committed: Mapping[str, Manifest]) -> Task:
    """Returns the step's task, once everything that it needs is committed (manifests by step id).

    Raises ConfigError if the search of another study that it begins from is not there.
    """
    manifests = {role: committed[needed.id] for role, needed in step.needs.items()}
    config = step.config
    if step.from_search:
        found = manifests.pop("tune").summary["parameters"]
        config = with_parameters(config, {path: found[path] for path in step.from_search if path in found})
    inputs = {role: Input(stage=m.stage, key=m.key, digest=m.digest) for role, m in manifests.items()}
    if step.earlier is not None:
        inputs["warm_start"] = step.earlier.committed()
    return new_task(study.name, step.stage, config, inputs, study.resources, step.experiment)


def plan(
    study: ResolvedStudy,
    source_digest: str | None = None,
    weights: Mapping[str, str] = MappingProxyType({}),
    earlier: Mapping[str, WarmStart] = MappingProxyType({}),
) -> list[Step]:
    """Returns all steps in an order in which each stands behind those that it needs; the report is last.

    `source_digest` is the data's fingerprint (`shared.data.sources.digest.source_digest`), `weights` those of weights by location
    (`shared.weights.digests.weight_digests`); without them, names stand in for contents. `earlier` is what `find_warm_starts` found.
    """
    return _Planner(study, source_digest, weights, earlier).plan()


@dataclass
class _Source:
    """Where an experiment's parameters come from."""

    tune: Step | None = None
    """Its own search, or the one that it takes over from."""
    from_search: tuple[str, ...] = ()
    """The settings of `generate` among them."""
    searched: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    """Values between which a search chose, of the paths that name weights."""


class _Planner:
    """The plan as it grows: experiments in their order, each from what those above it have."""

    def __init__(
        self,
        study: ResolvedStudy,
        source_digest: str | None,
        weights: Mapping[str, str],
        earlier: Mapping[str, WarmStart],
    ) -> None:
        self.study, self.weights, self.earlier = study, weights, earlier
        self.steps: dict[str, Step] = {}
        self.sources: dict[str | None, _Source] = {None: _Source()}
        rare, seed = study.written.rare, study.seed
        config = PrepareConfig(dataset=study.dataset, source_digest=source_digest, rare=rare, seed=seed)
        self.prepare = self._add(Step("prepare", None, "prepare", config, {}))

    def plan(self) -> list[Step]:
        experiments = self.study.experiments
        reported: dict[str, Step] = {"prepare": self.prepare}
        data_of = {}
        for experiment in experiments:  # what all else waits for gets the first free slot
            if experiment.images != "real":
                self._generator(experiment)
                if not generation_settings(experiment) and experiment.parameters_from is None:
                    self._images(experiment, _Source())
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
        # hub weights wait for nothing, and a wrong name or pin is told before hours of work
        return sorted(self.steps.values(), key=lambda step: step.stage not in ("prepare", "weights"))

    def _add(self, step: Step) -> Step:
        """Returns the equal step that is there already, if there is one."""
        if isinstance(step.config, WithWeights):
            named = named_weights(step.config, self.weights)
            step = replace(step, config=step.config.model_copy(update={"weights": named}))
        return self.steps.setdefault(step.id, step)

    def _search(self, experiment: ResolvedExperiment) -> _Source:
        """Adds the experiment's search, if it has one."""
        given = self.sources[experiment.parameters_from]
        kept = tuple(inherited(dict.fromkeys(given.from_search), experiment.pinned))
        searched_above = inherited(given.searched, experiment.pinned)
        own = {p: searched_above.get(p, ()) + values for p, values in searched_values(experiment).items()}
        source = self.sources[experiment.name] = _Source(given.tune, kept, searched_above | own)
        if experiment.search.trials:
            searched = generation_settings(experiment)
            # a trial whose search varies the images has its own made
            data = self._generator(experiment) if searched else self._images(experiment, source)
            needs = data | self._models(experiment) | ({"parameters": given.tune} if given.tune else {})
            if searched:
                needs |= self._judges(_judges_of(self.study, experiment))
            warm, earlier = experiment.search.warm_start_from, None
            if warm and "/" in warm:
                earlier = self.earlier.get(warm, WarmStart(warm))
            elif warm and (above := self.sources[warm].tune):
                needs["warm_start"] = above
            config = _tune_config(self.study, experiment)
            label = f"tune {experiment.name}"
            source.tune = self._add(Step("tune", experiment.name, label, config, needs, earlier=earlier))
            source.from_search += tuple(path for path in searched if path not in kept)
        return source

    def _weights(self, config: WeightsConfig) -> Step:
        at = f"@{config.revision[:8]}" if config.revision else ""
        return self._add(Step("weights", None, f"weights {config.name}{at}", config, {}))

    def _models(self, experiment: ResolvedExperiment) -> dict[str, Step]:
        """What an arm's classifier may begin with."""
        named = hub_models(experiment.classifier, self.sources[experiment.name].searched)
        return {role_of(config.name): self._weights(config) for config in named}

    def _judges(self, config: ScoreConfig) -> dict[str, Step]:
        named = hub_models(config.judge, {})
        return {JUDGES: self._weights(named[0])} if named else {}

    def _base(self, experiment: ResolvedExperiment) -> dict[str, Step]:
        named = hub_base(experiment.finetune)
        return {BASE: self._weights(named)} if named else {}

    def _generator(self, experiment: ResolvedExperiment) -> dict[str, Step]:
        """All that `generate` reads."""
        config = FinetuneConfig(finetune=experiment.finetune, rare=experiment.rare, seed=self.study.seed)
        base = self._base(experiment)
        needs = {"prepare": self.prepare} | base
        finetune = self._add(Step("finetune", experiment.name, "finetune", config, needs))
        return {"prepare": self.prepare, "finetune": finetune} | base

    def _images(self, experiment: ResolvedExperiment, source: _Source) -> dict[str, Step]:
        """The steps that make what an arm trains on, by role."""
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
    """The judges of an experiment's generated images: the study's, so that arms which share images share their scores too."""
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
