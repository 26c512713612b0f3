"""Plans which stages a study needs, and what each depends on. Only this module knows the order of the stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TypeVar

from shared.artifacts.keys import canonical_digest, keyed, named_weights, new_task
from shared.artifacts.manifest import Manifest
from shared.config.apply_parameters import inherited
from shared.config.generation import Score
from shared.config.paths import with_parameters
from shared.config.resolve import ResolvedExperiment, ResolvedStudy, generation_settings
from shared.config.search import Verdict
from shared.config.seeds import repetition_seed
from shared.config.stages import (
    STAGES,
    Arm,
    FinalConfig,
    FinetuneConfig,
    GenerateConfig,
    JudgeConfig,
    Judges,
    PrepareConfig,
    Repetitions,
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
from shared.config.training import Classifier
from shared.pipeline.warm_start import WarmStart
from shared.search.best_parameters import best_parameters
from shared.weights.roles import (
    BASE,
    FEW_STEP,
    JUDGES,
    Value,
    hub_base,
    hub_few_step,
    hub_models,
    role_of,
    searched_values,
)

J = TypeVar("J", bound=Judges)


@dataclass(frozen=True)
class SearchedParameters:
    """Says which of the parameters that the search in the role `tune` found are set in a step's config."""

    paths: tuple[str, ...] | None = None
    """Lists the paths that are set; None sets all of them."""
    without: tuple[str, ...] = ()
    """Lists the paths that the experiment sets itself, which another experiment's search does not replace."""
    repetition: int | None = None
    """Selects the repetition whose best trial counts; None takes the best trial of all."""

    def of(self, tune: Manifest) -> dict[str, Value]:
        """Returns the parameters by path, given the manifest of the search."""
        found = best_parameters(tune.summary, self.repetition)
        return {
            path: value
            for path, value in inherited(found, self.without).items()
            if self.paths is None or path in self.paths
        }


@dataclass(frozen=True)
class Step:
    """Describes a stage with its config, and the steps whose results it reads, by role. Equal steps are in the plan once."""

    stage: Stage
    experiment: str | None
    label: str
    """Names the step in messages, e.g. `final synthetic 3`."""
    config: StageConfig
    needs: Mapping[str, Step]
    from_search: SearchedParameters | None = None
    """Says which values of the search in the role `tune` this step takes. The search itself is not an input of the task then: only the values
    are in its key, so that a result stays valid if a longer search ends with the same values."""
    warm_start: WarmStart | None = None
    """Names the search of another study that is its input `warm_start`."""

    @cached_property
    def id(self) -> str:
        """Returns an identifier that is equal for steps with the same work. Unlike the key, it is known before anything has run."""
        needs = {role: step.id for role, step in self.needs.items()}
        if self.warm_start is not None:
            needs["warm_start"] = self.warm_start.name
        found = None if self.from_search is None else asdict(self.from_search)
        return canonical_digest([self.stage, keyed(self.stage, self.config), needs, found])


def make_task(study: ResolvedStudy, step: Step, committed: Mapping[str, Manifest]) -> Task:
    """Returns the step's task, given the manifests of all steps that it needs, by step id.

    Raises ConfigError if its warm start, a search of another study, is not committed.
    """
    manifests = {role: committed[needed.id] for role, needed in step.needs.items()}
    config, expected = step.config, None
    if step.from_search is not None:
        tune = manifests.pop("tune")
        config, expected = _with_found(config, step.from_search.of(tune)), _expected_seconds(config, tune)
    inputs = {role: Input(stage=m.stage, key=m.key, digest=m.digest) for role, m in manifests.items()}
    if step.warm_start is not None:
        inputs["warm_start"] = step.warm_start.committed()
    task = new_task(study.name, step.stage, config, inputs, study.resources, step.experiment)
    return task.model_copy(update={"expected_seconds": expected})


def _expected_seconds(config: StageConfig, tune: Manifest) -> float | None:
    """Returns about how long a final training takes if an epoch takes as long as in the trials of a search, which is on the same devices."""
    trials = tune.summary.get("trials")
    spent = tune.run.device_seconds + (tune.run.cpu_seconds or 0.0)
    if not isinstance(config, FinalConfig) or not trials or not spent:
        return None
    pace = spent / trials / tune.config["search"]["epochs"]
    return float(pace * (config.final.epochs + config.arm.training.refit_epochs))


def _with_found(config: StageConfig, found: dict[str, Value]) -> StageConfig:
    if isinstance(config, FinalConfig):
        return config.model_copy(update={"parameters": found})
    return with_parameters(config, found)


def plan(
    study: ResolvedStudy,
    source_digest: str | None = None,
    weights: Mapping[str, str] = MappingProxyType({}),
    warm_starts: Mapping[str, WarmStart] = MappingProxyType({}),
) -> list[Step]:
    """Returns all steps, each after those that it needs; the report is last.

    `source_digest` is the data's digest (`shared.data.sources.digest.source_digest`), and `weights` has the digests of weights
    by location (`shared.weights.digests.weight_digests`); without them, keys depend on names instead of contents. `warm_starts`
    is the result of `find_warm_starts`.
    """
    return _Planner(study, source_digest, weights, warm_starts).plan()


@dataclass
class _ParameterSource:
    """Says where an experiment's parameters come from."""

    tune: Step | None = None
    """Refers to its own search, or to the one whose parameters it takes over."""
    generation: tuple[str, ...] = ()
    """Lists the paths of `generate` among the parameters."""
    without: tuple[str, ...] = ()
    """Lists the paths that the experiment sets itself, if the search is another's."""
    searched: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    """Lists the values among which a search chooses, for each path that names weights."""


class _Planner:
    """Builds the plan, experiment by experiment, since each may use steps of the experiments above it.

    With a verdict there is one pool of generated images per repetition, which has the repetition's number. Without one there is
    only pool 0. There is one prepared data set, or one per repetition if each tests on a fold of its own.
    """

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
        self.repetitions = range(study.repetitions)
        self.pools = range(study.pools)
        self.data_sets = [self._prepare(n, source_digest) for n in (self.repetitions if study.folds else range(1))]
        self.same_for_all_pools = (JUDGES, BASE, FEW_STEP, *(() if study.folds else ("prepare", "judge")))
        """Lists the roles of the inputs of `tune` that do not depend on the pool."""

    def plan(self) -> list[Step]:
        experiments = self.study.experiments
        reported = {"prepare" if n == 0 else f"prepare/{n}": step for n, step in enumerate(self.data_sets)}
        data_of: dict[str, list[dict[str, Step]]] = {}
        for pool in self.pools:  # the plan's first steps get the first free slots: those that most others need
            for experiment in experiments:
                if experiment.images != "real":
                    self._generator(experiment, pool)
                    if not generation_settings(experiment) and experiment.parameters_from is None:
                        self._images(experiment, _ParameterSource(), pool)
        for experiment in experiments:
            source = self._search(experiment)
            data_of[experiment.name] = [self._images(experiment, source, pool) for pool in self.pools]
            for pool, data in zip(self.pools, data_of[experiment.name], strict=True):
                own = {role: step for role, step in data.items() if role != "prepare"}
                reported |= {f"{role}/{experiment.name}/{pool}": step for role, step in own.items()}
                if self.study.scored(experiment):  # all pools have the same judges, unless they have a data set each
                    number = f"/{pool}" if self.study.folds and pool else ""
                    reported[f"judge/{experiment.name}{number}"] = own["score"].needs["judge"]
            if experiment.search.trials and source.tune is not None:
                reported[f"tune/{experiment.name}"] = source.tune
        for repeat in self.repetitions:
            for experiment in experiments:
                if repeat < experiment.final.seeds:
                    data = data_of[experiment.name][repeat if self.study.repeated else 0]
                    reported[f"final/{experiment.name}/{repeat}"] = self._final(experiment, repeat, data)
        for step in self.steps.values():
            if step.stage == "weights":
                reported[step.label.replace(" ", "/")] = step
        self._add(Step("report", None, "report", _report_config(self.study), reported))
        # hub weights need no other step, and a wrong name or revision should fail before hours of work
        return sorted(self.steps.values(), key=lambda step: step.stage not in ("prepare", "weights"))

    def _prepare(self, repetition: int, source_digest: str | None) -> Step:
        study, fold = self.study, self.study.fold(repetition)
        config = PrepareConfig(
            dataset=study.dataset, source_digest=source_digest, rare=study.written.rare, seed=study.seed, fold=fold
        )
        return self._add(Step("prepare", None, "prepare" if fold is None else f"prepare {fold.number}", config, {}))

    def _data_set(self, pool: int) -> Step:
        """Returns the data set of a repetition, from which its pool of images is made."""
        return self.data_sets[pool if self.study.folds else 0]

    def _add(self, step: Step) -> Step:
        """Adds a step and returns it, or returns the equal one that the plan already has."""
        if isinstance(step.config, WithWeights):
            named = named_weights(step.config, self.weights)
            step = replace(step, config=step.config.model_copy(update={"weights": named}))
        return self.steps.setdefault(step.id, step)

    def _search(self, experiment: ResolvedExperiment) -> _ParameterSource:
        """Adds the experiment's search, if it has one, and returns where its parameters come from."""
        above = self.sources[experiment.parameters_from]
        taken_over = tuple(inherited(dict.fromkeys(above.generation), experiment.pinned))
        searched_above = inherited(above.searched, experiment.pinned)
        own = {p: searched_above.get(p, ()) + values for p, values in searched_values(experiment).items()}
        source = self.sources[experiment.name] = _ParameterSource(
            above.tune, taken_over, experiment.pinned, searched_above | own
        )
        if experiment.search.trials:
            searched = generation_settings(experiment)
            needs = self._models(experiment) | ({"parameters": above.tune} if above.tune else {})
            for pool in self.pools:
                # if the search varies how images are generated, each trial has its own images made
                data = (
                    self._generator(experiment, pool) | self._few_step(experiment)
                    if searched
                    else self._images(experiment, source, pool)
                )
                if searched and self.study.scored(experiment):
                    data |= self._judges(experiment, pool)
                needs |= {
                    role if role in self.same_for_all_pools else f"{role}/{pool}": step for role, step in data.items()
                }
            name, warm_start = experiment.search.warm_start_from, None
            if name and "/" in name:
                warm_start = self.warm_starts.get(name, WarmStart(name))
            elif name and (tune := self.sources[name].tune):
                needs["warm_start"] = tune
            config = _tune_config(self.study, experiment)
            label = f"tune {experiment.name}"
            source.tune = self._add(Step("tune", experiment.name, label, config, needs, warm_start=warm_start))
            source.generation += tuple(path for path in searched if path not in taken_over)
            source.without = ()
        return source

    def _weights(self, config: WeightsConfig) -> Step:
        at = f"@{config.revision[:8]}" if config.revision else ""
        file = f"/{config.file}" if config.file else ""
        return self._add(Step("weights", None, f"weights {config.name}{file}{at}", config, {}))

    def _models(self, experiment: ResolvedExperiment) -> dict[str, Step]:
        """Returns the steps that download the weights from which an arm's classifier may start, by role."""
        named = hub_models(experiment.classifier, self.sources[experiment.name].searched)
        return {role_of(config.name): self._weights(config) for config in named}

    def _judges(self, experiment: ResolvedExperiment, pool: int) -> dict[str, Step]:
        """Adds the judges of a pool of an experiment's images, and returns the steps that `score` reads of them, by role."""
        config = _judges_of(self.study, experiment, JudgeConfig)
        named = hub_models(config.classifier, {})
        weights = {JUDGES: self._weights(named[0])} if named else {}
        label = self._numbered("judge", pool) if self.study.folds else "judge"
        judge = self._add(Step("judge", experiment.name, label, config, {"prepare": self._data_set(pool)} | weights))
        return {"judge": judge} | weights

    def _base(self, experiment: ResolvedExperiment) -> dict[str, Step]:
        named = hub_base(experiment.finetune)
        return {BASE: self._weights(named)} if named else {}

    def _few_step(self, experiment: ResolvedExperiment) -> dict[str, Step]:
        named = hub_few_step(experiment.generate)
        return {FEW_STEP: self._weights(named)} if named else {}

    def _numbered(self, stage: str, pool: int) -> str:
        return f"{stage} {pool}" if len(self.pools) > 1 else stage

    def _generator(self, experiment: ResolvedExperiment, pool: int) -> dict[str, Step]:
        """Adds the experiment's generator of a pool, and returns the steps that `generate` reads, by role."""
        number = pool if self.study.generators == "each" else 0
        seed = repetition_seed(self.study.seed, number)
        config = FinetuneConfig(finetune=experiment.finetune, rare=experiment.rare, seed=seed)
        base = self._base(experiment)
        prepared = self._data_set(pool)
        needs = {"prepare": prepared} | base
        label = self._numbered("finetune", pool) if self.study.generators == "each" else "finetune"
        finetune = self._add(Step("finetune", experiment.name, label, config, needs))
        return {"prepare": prepared, "finetune": finetune} | base

    def _images(self, experiment: ResolvedExperiment, source: _ParameterSource, pool: int) -> dict[str, Step]:
        """Adds the steps that make a pool of the images that an arm trains on, and returns them by role."""
        if experiment.images == "real":
            return {"prepare": self._data_set(pool)}
        needs = self._generator(experiment, pool)
        made_from = {role: step for role, step in needs.items() if role != BASE}
        needs |= self._few_step(experiment)
        found, own = None, ""
        if source.generation and source.tune:
            needs, own = needs | {"tune": source.tune}, f" {experiment.name}"
            found = SearchedParameters(source.generation, repetition=pool if self.study.repeated else None)
        config = GenerateConfig(
            generate=experiment.generate,
            base=experiment.finetune.base_location,
            rare=experiment.rare,
            seed=self.study.seed,
            pool=pool,
            weights=named_weights(experiment.generate, self.weights),
        )
        label = self._numbered(f"generate{own}", pool)
        generate = self._add(Step("generate", experiment.name, label, config, needs, found))
        if not self.study.scored(experiment):
            return {**made_from, "generate": generate}
        judged = {"prepare": self._data_set(pool), "generate": generate} | self._judges(experiment, pool)
        scoring = _judges_of(self.study, experiment, ScoreConfig)
        score = self._add(Step("score", experiment.name, self._numbered(f"score{own}", pool), scoring, judged))
        return {**made_from, "generate": generate, "score": score}

    def _final(self, experiment: ResolvedExperiment, repeat: int, data: dict[str, Step]) -> Step:
        name, source = experiment.name, self.sources[experiment.name]
        config = FinalConfig(
            arm=arm_of(experiment),
            final=experiment.final,
            seed=repetition_seed(experiment.seed, repeat),
            repeat=repeat,
        )
        read = {role: step for role, step in data.items() if role != "finetune"}
        needs, found = read | self._models(experiment), None
        if source.tune is not None:
            needs["tune"] = source.tune
            found = SearchedParameters(without=source.without, repetition=repeat if self.study.repeated else None)
        return self._add(Step("final", name, f"final {name} {repeat}", config, needs, found))


def _judges_of(study: ResolvedStudy, experiment: ResolvedExperiment, kind: type[J]) -> J:
    """Returns a config with the judges of an experiment's images: the study's, so that arms that share images share their scores too."""
    score, written = experiment.score, study.written
    return kind(
        folds=score.folds,
        epochs=score.epochs,
        classifier=_judges_network(score, written.classifier),
        augmentation=written.augmentation,
        training=written.training,
        seed=study.seed,
    )


def _judges_network(score: Score, classifier: Classifier) -> Classifier:
    if score.model in (None, classifier.model):
        return classifier
    return Classifier(
        model=score.model,
        # the classifier's weights file and its prefix of parameter names do not fit another model
        pretrained=classifier.pretrained is True,
        trainable="all",
        head=(),
        resolution=classifier.resolution,
    )


def arm_of(experiment: ResolvedExperiment) -> Arm:
    """Returns the part of an experiment that its search varies and its final trainings repeat."""
    real = experiment.images == "real"
    return Arm(
        rare=experiment.rare,
        accept=None if real else experiment.accept,
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
            score=_judges_of(study, experiment, ScoreConfig) if study.scored(experiment) else None,
            seed=study.seed,
            versions={"generate": STAGES["generate"].version, "score": STAGES["score"].version},
        )
    return TuneConfig(
        arm=arm,
        images=images,
        pinned=tuple(sorted(experiment.pinned)),
        search=experiment.search,
        seed=experiment.seed,
        repetitions=_repetitions(study),
    )


def _repetitions(study: ResolvedStudy) -> Repetitions | None:
    if not isinstance(study.verdict, Verdict):
        return None
    baseline = next(e for e in study.experiments if e.name == study.verdict.baseline)
    return Repetitions(count=study.repetitions, seed=study.seed, shared=tuple(baseline.search.space))


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
        prices=study.prices,
    )
