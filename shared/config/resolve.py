"""Resolves a study: merges each experiment's own values into the study's, and checks what must hold between sections."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

from pydantic import ValidationError

from shared.config.base import Section
from shared.config.dataset import Dataset, Fold
from shared.config.explain import Path, append_place, explain, path_text, requirement
from shared.config.near import near
from shared.config.paths import is_under, value_at, with_parameters
from shared.config.prices import Prices
from shared.config.search import Choice, FloatRange, Range, Resources, Search, Verdict
from shared.config.seeds import hashed_seed
from shared.config.study import NAME_PATTERN, Experiment, Overridable, Study
from shared.config.templates import check_template
from shared.config.training import LABEL_POWER
from shared.config.verdict_rules import check_folds, check_verdict
from shared.errors import ConfigError
from shared.terminal import shortened

SEARCHABLE = ("training", "synthetic", "accept", "classifier", "augmentation")
"""Lists the sections whose paths a search space may name, since an arm is trained with them."""
SEARCHABLE_GENERATION = (
    "generate.guidance", "generate.steps", "generate.image_to_image.share", "generate.image_to_image.strength",
    "generate.fill_to", "generate.cap",
)  # fmt: skip
"""Lists the other paths that it may name. They say how the images are generated with which an arm is trained."""
NOT_SEARCHABLE = ("classifier.revision", "accept.reviewed")
"""Lists the paths of these sections that it may not name."""
DISCRIMINATORS = {"finetune": "generator"}
"""Names the key that chooses the kind of a section, for the sections that have several kinds."""
NO_SOFT_LABELS = "has no meaning without images that have soft labels; set generate.image_to_image: {start_from: similar}, or remove it"
AUGMENTATION_PATHS = frozenset({"augmentation", "training.erasing"})


class ResolvedExperiment(Overridable):
    """Holds an experiment with every value filled in."""

    name: str
    title: str | None
    paper_row: int | None
    seed: int
    """Gives a hash of the study's seed and the experiment's own."""
    parameters_from: str | None
    pinned: tuple[str, ...]
    """Lists the paths that the experiment sets itself, which take precedence over the parameters of `parameters_from`."""


def is_filter(path: str) -> bool:
    """Returns whether a value at this path chooses among generated images by their scores."""
    return path.split(".")[0] == "accept" or path == "synthetic.groups"


@dataclass(frozen=True)
class ResolvedStudy:
    """Holds a valid study with every value of every experiment filled in, which all later steps work with."""

    written: Study
    """Holds the study as it is written in the file, with `--set` applied."""
    experiments: tuple[ResolvedExperiment, ...]
    """Holds the experiments in the order of the file."""

    @property
    def name(self) -> str:
        """Returns the study's name."""
        return self.written.name

    @property
    def seed(self) -> int:
        """Returns the study's seed, from which each experiment's seed follows."""
        return self.written.seed

    def scored(self, experiment: ResolvedExperiment) -> bool:
        """Returns whether an arm chooses among its generated images by their scores: one that takes all of them needs no judges.

        It may also take a filter over from the searches above it.
        """
        if experiment.images == "real":
            return False
        if not experiment.accept.takes_all or experiment.synthetic.groups != "all":
            return True
        above: ResolvedExperiment | None = experiment
        pinned: tuple[str, ...] = ()
        while above is not None:
            if any(is_filter(path) and not is_under(path, pinned) for path in above.search.space):
                return True
            pinned += above.pinned
            above = next((e for e in self.experiments if e.name == above.parameters_from), None)
        return False

    def experiment(self, name: str) -> ResolvedExperiment:
        """Returns the experiment that `--experiment` names; raises ConfigError if there is none."""
        for experiment in self.experiments:
            if experiment.name == name:
                return experiment
        names = [experiment.name for experiment in self.experiments]
        raise ConfigError(f"--experiment {shortened(name, 100)}: there is no such experiment{near(name, names)}")

    @property
    def dataset(self) -> Dataset:
        """Describes the image source."""
        return self.written.dataset

    @property
    def verdict(self) -> Verdict | Literal["none"]:
        """Returns how the study decides between helps, hurts and no effect found."""
        return self.written.verdict

    @property
    def repeated(self) -> bool:
        """Returns whether each repetition has a search and a pool of generated images of its own, as a verdict needs."""
        return isinstance(self.verdict, Verdict)

    @property
    def repetitions(self) -> int:
        """Returns the number of repetitions: that of the experiment that has the most."""
        return max(experiment.final.seeds for experiment in self.experiments)

    @property
    def pools(self) -> int:
        """Returns the number of pools of generated images."""
        return self.repetitions if self.repeated else 1

    @property
    def folds(self) -> bool:
        """Returns whether each repetition tests on a fold of its own, in place of a test split that all share."""
        return self.dataset.split.test == "folds"

    def fold(self, repetition: int) -> Fold | None:
        """Returns the fold that a repetition tests on; None if all share a test split."""
        return Fold(number=repetition, count=self.repetitions) if self.folds else None

    @property
    def generators(self) -> Literal["each", "one"]:
        """Returns whether each pool of generated images has a generator of its own."""
        return self.verdict.generators if isinstance(self.verdict, Verdict) else "one"

    @property
    def resources(self) -> Resources:
        """Describes the resources that stages may use."""
        return self.written.resources

    @property
    def prices(self) -> Prices | None:
        """Returns the prices of devices, if the study has any."""
        return self.written.prices


def resolve(study: Study, places: Mapping[Path, str] = MappingProxyType({})) -> ResolvedStudy:
    """Returns the study with all experiments filled in, after checking what must hold between sections.

    `places` says where each path was written. Raises ConfigError, which names the path, the value, a remedy and the place.
    """
    tree = study.model_dump(mode="json", by_alias=True, include=set(Overridable.model_fields))
    experiments = tuple(_resolve(study, e, i, tree, places) for i, e in enumerate(study.experiments))
    _check(study, experiments, places)
    return ResolvedStudy(study, experiments)


def _resolve(
    study: Study, experiment: Experiment, index: int, tree: dict[str, Any], places: Mapping[Path, str]
) -> ResolvedExperiment:
    own = experiment.model_dump(mode="json", exclude_unset=True)
    overrides = {name: own[name] for name in Overridable.model_fields if own.get(name) is not None}
    merged = tree | {name: _merge(tree[name], value, DISCRIMINATORS.get(name)) for name, value in overrides.items()}
    pinned = [
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in overrides.items()
        for key in (value if isinstance(value, dict) else [None])
    ]
    merged |= {
        "name": experiment.name,
        "title": experiment.title,
        "paper_row": experiment.paper_row,
        "seed": hashed_seed("experiment", study.seed, experiment.seed),
        "parameters_from": experiment.parameters_from,
        "pinned": pinned,
    }
    with explain(places, ("experiments", index), ResolvedExperiment):
        resolved = ResolvedExperiment.model_validate_json(json.dumps(merged))
    if resolved.finetune.sampling_of_base or resolved.generate.few_step is not None:
        written = {*study.generate.model_fields_set, *(own.get("generate") or {})}
        unset = {name: None for name in ("guidance", "steps") if name not in written}
        resolved = resolved.model_copy(update={"generate": resolved.generate.model_copy(update=unset)})
    return _resolve_sampler(_resolve_views(resolved), isinstance(study.verdict, Verdict))


def _resolve_views(experiment: ResolvedExperiment) -> ResolvedExperiment:
    """Replaces `views: auto` by `fresh` if the augmentation is searched, since views would then be computed again for each trial."""
    training, search = experiment.training, experiment.search
    if training.views == "auto" and search.trials and AUGMENTATION_PATHS.intersection(search.space):
        return experiment.model_copy(update={"training": training.model_copy(update={"views": "fresh"})})
    return experiment


def _resolve_sampler(experiment: ResolvedExperiment, verdict: bool) -> ResolvedExperiment:
    if experiment.search.sampler != "auto":
        return experiment
    search = experiment.search.model_copy(update={"sampler": "qmc" if verdict else "tpe"})
    return experiment.model_copy(update={"search": search})


def _merge(base: Any, override: Any, discriminator: str | None) -> Any:
    if not isinstance(base, dict) or not isinstance(override, dict):
        return override
    if discriminator and override.get(discriminator, base.get(discriminator)) != base.get(discriminator):
        return override  # another kind of generator: nothing of the first applies
    # a search space is one value: an experiment that names its parameters searches those and no others
    return base | {k: v if k == "space" else _merge(base.get(k), v, None) for k, v in override.items()}


def _check_templates(
    study: Study,
    experiment: ResolvedExperiment,
    where: Callable[[Path], str],
    places: Mapping[Path, str],
    index: int,
) -> None:
    """Raises ConfigError for a caption or a prompt with a field that is no label group, or a brace without a partner."""
    caption = getattr(experiment.finetune, "caption", None)
    templates = [(("finetune", "caption"), caption)] if caption is not None else []
    if experiment.finetune.has_prompts:
        templates += [(("generate", "prompts"), prompt) for prompt in experiment.generate.prompts]
    for path, template in templates:
        with append_place(path, places, index):
            check_template(template, study.dataset.group_names, where(path))


def _check(study: Study, experiments: tuple[ResolvedExperiment, ...], places: Mapping[Path, str]) -> None:
    for index, experiment in enumerate(experiments):
        where = partial(_written_path, study.experiments[index], index)
        for path, values in experiment.search.space.items():
            with append_place(("search", "space", path), places, index):
                _check_space(experiment, where(("search", "space")), path, values)
        finetune = experiment.finetune
        if not finetune.finer_than_data and (finetune.resolution or 0) > study.dataset.resolution:
            with append_place(("finetune", "resolution"), places, index):
                raise ConfigError(
                    f"{where(('finetune', 'resolution'))}: must be <= dataset.resolution ({study.dataset.resolution}), "
                    f"got {finetune.resolution}"
                )
        reasons = {
            "prompts": "which reads labels and no text",
            "negative_prompt": "which reads labels and no text",
            "few_step": "which has no base that a LoRA could be distilled for",
        }
        for name, why in reasons.items():
            if getattr(experiment.generate, name) and not finetune.has_prompts and experiment.images != "real":
                with append_place(("generate", name), places, index):
                    raise ConfigError(
                        f"{where(('generate', name))}: has no meaning with generator: {finetune.generator}, {why}; remove it"
                    )
        if experiment.images != "real":
            _check_templates(study, experiment, where, places, index)
            with append_place(("accept", "reviewed"), places, index):
                _check_reviewed(experiment, where(("accept", "reviewed")))
        with append_place(("synthetic", "label_power"), places, index):
            _check_label_power(experiment, where(("synthetic", "label_power")))
        with append_place(("classifier", "revision"), places, index):
            _check_revision(experiment, where(("classifier", "revision")))
        _check_objectives(experiment.search, where, places, index)
        _check_pruner(experiment.search, where, places, index)
        with append_place(("search", "warm_start_from"), places, index):
            _check_warm_start(study, experiments[:index], experiment.search, where(("search", "warm_start_from")))
        if experiment.search.trials and not experiment.search.space:
            with append_place(("search", "space"), places, index):
                raise ConfigError(f"{where(('search', 'space'))}: is empty; name parameters, or set search.trials: 0")
    if isinstance(study.verdict, Verdict):
        check_verdict(study.verdict, experiments, places)
    if study.dataset.split.test == "folds":
        check_folds(study.verdict, max(e.final.seeds for e in experiments), places)


def _check_revision(experiment: ResolvedExperiment, where: str) -> None:
    space = experiment.search.space if experiment.search.trials else {}
    if experiment.classifier.revision is not None and "classifier.model" in space:
        raise ConfigError(
            f"{where}: pins the weights of one model, got {experiment.classifier.revision!r} with a search over classifier.model; remove it"
        )


def _check_label_power(experiment: ResolvedExperiment, where: str) -> None:
    if (
        experiment.images == "real+synthetic"
        and experiment.synthetic.label_power != LABEL_POWER
        and not experiment.generate.starts_from_similar
    ):
        raise ConfigError(f"{where}: {NO_SOFT_LABELS}, got {experiment.synthetic.label_power}")


def _check_reviewed(experiment: ResolvedExperiment, where: str) -> None:
    if experiment.accept.reviewed is not None and (searched := generation_settings(experiment)):
        raise ConfigError(
            f"{where}: nobody has reviewed the images that trials make, as the search of {experiment.name} varies {searched[0]}; "
            "remove it there, or take that path out of search.space"
        )


def _written_path(experiment: Experiment, index: int, path: Path, *causes: Path) -> str:
    """Returns the path as the user wrote it: the experiment's if it sets the value or one of the `causes`, else the study's."""
    own = experiment.model_dump(exclude_unset=True)
    return path_text(("experiments", index, *path) if any(_has_path(own, p) for p in (path, *causes)) else path)


def _has_path(tree: Any, path: Path) -> bool:
    return not path or (isinstance(tree, dict) and path[0] in tree and _has_path(tree[path[0]], path[1:]))


def _check_objectives(search: Search, where: Callable[..., str], places: Mapping[Path, str], index: int) -> None:
    """Raises ConfigError for settings that Optuna cannot combine with several objectives."""
    if len(search.objectives) == 1:
        return
    reasons = {
        "strategy": (search.strategy, ("joint", "random", "grid"), "a sequential search keeps the one best value of each parameter"),
        "sampler": (search.sampler, ("auto", "tpe", "qmc", "gp"), "it follows one objective"),
        "pruner": (search.pruner, ("none",), "an unfinished trial is neither better nor worse than another"),
    }  # fmt: skip
    objective = ("search", "objective")
    for name, (value, allowed, why) in reasons.items():
        path = ("search", name)
        written = path in places or ("experiments", index, *path) in places  # otherwise it is a default
        if value not in allowed:
            with append_place(path if written else objective, places, index):
                raise ConfigError(
                    f"{where(path, objective)}: must be {' or '.join(allowed)} with several objectives ({why}), got {value!r}; "
                    "set it so, or name one search.objective"
                )


def _check_pruner(search: Search, where: Callable[..., str], places: Mapping[Path, str], index: int) -> None:
    """Raises ConfigError if a pruner that was written can prune nothing between `prune_after` and the last epoch."""
    path, last = ("search", "pruner"), search.epochs - 2
    written = search.trials and (path in places or ("experiments", index, *path) in places)
    if written and search.pruner != "none" and search.prune_after > last:
        remedy = f"lower search.prune_after to {last}, raise search.epochs" if last >= 0 else "raise search.epochs"
        with append_place(path, places, index):
            raise ConfigError(
                f"{where(path)}: {search.pruner} would prune no trial: it judges from epoch {search.prune_after} on (search.prune_after, "
                f"counted from 0) and before the last of {search.epochs}; {remedy}, or set pruner: none"
            )


def _check_warm_start(study: Study, above: tuple[ResolvedExperiment, ...], search: Search, where: str) -> None:
    name = search.warm_start_from
    if name is None or not search.trials:
        return
    searched = [experiment.name for experiment in above if experiment.search.trials]
    other, slash, experiment_name = name.rpartition("/")
    if not slash and name not in searched:
        raise ConfigError(
            f"{where}: must name an experiment above with a search of its own, or another study's as "
            f"study/experiment, got {name!r}; there are {', '.join(searched) or 'none'}"
        )
    if slash and (
        other == study.name or not all(re.fullmatch(NAME_PATTERN, part) for part in (other, experiment_name))
    ):
        raise ConfigError(
            f"{where}: must be an experiment above, or study/experiment of another study, got {name!r}; "
            f"experiments above with a search are {', '.join(searched) or 'none'}"
        )


def _check_space(experiment: ResolvedExperiment, where: str, path: str, values: Range) -> None:
    root = path.split(".")[0]
    if path in SEARCHABLE_GENERATION:
        _check_generation(experiment, path, values, where)
    elif root not in SEARCHABLE or path in NOT_SEARCHABLE:
        raise ConfigError(f"{where}: {path!r} cannot be searched{near(path, _searchable(experiment))}")
    if path == "synthetic.label_power" and not experiment.generate.starts_from_similar:
        raise ConfigError(f"{where}: {path!r} {NO_SOFT_LABELS}")
    try:
        value = value_at(experiment, path)
    except ConfigError:
        raise ConfigError(
            f"{where}: {path!r} is not a value of the study{near(path, _searchable(experiment))}"
        ) from None
    if not isinstance(values, Choice) and isinstance(value, bool | str | tuple):
        raise ConfigError(f"{where}: {path!r} is not a number; give it `kind: choice` and `values`")
    if root in ("synthetic", "accept", "generate") and experiment.images == "real":
        raise ConfigError(
            f"{where}: {path!r} has no meaning with images: real of the experiment {experiment.name}; give that experiment a space without it"
        )
    if isinstance(values, Choice):
        ends: dict[str, Any] = {f"values[{i}]": value for i, value in enumerate(values.values)}
    else:
        ends = {"low": values.low, "high": values.high}
    for name, end in ends.items():
        try:
            with_parameters(experiment, {path: end})
        except ValidationError as error:
            required = requirement(error)
            whole = isinstance(values, FloatRange) and "whole number" in required
            remedy = "give it `kind: int`" if whole else f"name values that {path} can have"
            raise ConfigError(f"{where}.{path}.{name}: {required}, got {json.dumps(end)}; {remedy}") from None


def _check_generation(experiment: ResolvedExperiment, path: str, values: Range, where: str) -> None:
    if not isinstance(values, Choice):
        raise ConfigError(
            f"{where}: {path!r} generates images again for each value; give it a few `values` that trials can share"
        )
    if path.startswith("generate.image_to_image.") and experiment.generate.image_to_image is None:
        raise ConfigError(
            f"{where}: {path!r} has no meaning without image-to-image; set generate.image_to_image, e.g. {{share: 0.5}}"
        )


def generation_settings(experiment: ResolvedExperiment) -> tuple[str, ...]:
    """Returns the paths of `generate` that the experiment's search varies, in the order of its space."""
    searched = experiment.search.space if experiment.search.trials else ()
    return tuple(path for path in searched if path in SEARCHABLE_GENERATION)


def _searchable(experiment: ResolvedExperiment) -> list[str]:
    paths = ["augmentation", *SEARCHABLE_GENERATION]
    for root in SEARCHABLE:
        section = getattr(experiment, root)
        if isinstance(section, Section):
            paths += [f"{root}.{field}" for field in type(section).model_fields]
    return [path for path in paths if path not in NOT_SEARCHABLE]
