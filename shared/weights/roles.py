"""Lists the weights of the Hugging Face hub that a study names, and the roles under which stages have them as inputs.

The stage `weights` fetches them once, on a machine that is online; all other stages read what it committed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from shared.artifacts.open import is_s3
from shared.config.generation import AnyFinetune, Generate
from shared.config.resolve import ResolvedExperiment
from shared.config.search import Choice
from shared.config.stages import PRETRAINED, WeightsConfig
from shared.config.training import Classifier

BASE = "weights/base"
"""Names the role of the base model of `finetune`."""
FEW_STEP = "weights/few-step"
"""Names the role of the LoRA with which `generate` draws in a few steps."""
JUDGES = "weights/judges"
"""Names the role of the weights of the judges' classifier."""
FEW_STEP_KIND = "few-step"
"""Marks the LoRA for few steps among the kinds of `WeightsConfig`."""
BASE_SETTING = "finetune.base"
"""Names the setting with the location of a generator's base."""
ADAPTER = "generate.few_step.adapter"
"""Names the setting with the location of a LoRA for few steps."""
PINS = {
    BASE_SETTING: "finetune.revision",
    PRETRAINED: "classifier.revision",
    ADAPTER: "generate.few_step.revision",
}
"""Maps the settings that name repositories of models to those that pin the commits."""
MODEL = "classifier.model"
Value = bool | int | float | str


def role_of(model: str) -> str:
    """Returns the role of the weights of a timm model from which an arm is trained."""
    return f"weights/{model}"


def is_hub_name(base: str) -> bool:
    """Returns whether a base is `owner/name` on the hub, and neither a local folder nor in a bucket."""
    return not is_s3(base) and base[:1] not in "/.~" and base.count("/") == 1 and not Path(base).is_dir()


def hub_base(finetune: AnyFinetune) -> WeightsConfig | None:
    """Returns the config of the stage that fetches the base model, or None if there is no base or it is not on the hub."""
    base = finetune.base_location
    if base is None or not is_hub_name(base):
        return None
    return WeightsConfig(kind=finetune.generator, name=base, revision=finetune.base_revision)


def hub_few_step(generate: Generate) -> WeightsConfig | None:
    """Returns the config of the stage that fetches the LoRA for few steps, or None if there is none or it is not on the hub."""
    few = generate.few_step
    if few is None or not few.on_hub:
        return None
    return WeightsConfig(kind=FEW_STEP_KIND, name=few.adapter, revision=few.revision, file=few.hub_file)


def hub_models(classifier: Classifier, searched: Mapping[str, Collection[Value]]) -> tuple[WeightsConfig, ...]:
    """Returns the configs that fetch the hub weights from which a classifier may start; `searched` are the values of a search, by path."""
    if classifier.pretrained is not True and not any(value is True for value in searched.get(PRETRAINED, ())):
        return ()
    names = dict.fromkeys([classifier.model, *(str(name) for name in searched.get(MODEL, ()))])
    return tuple(
        WeightsConfig(kind="timm", name=name, revision=classifier.revision if name == classifier.model else None)
        for name in names
    )


def searched_values(experiment: ResolvedExperiment) -> dict[str, tuple[Value, ...]]:
    """Returns the values from which the experiment's search chooses, for the paths that name weights."""
    space = experiment.search.space if experiment.search.trials else {}
    choices = {path: space.get(path) for path in (PRETRAINED, MODEL)}
    return {path: choice.values for path, choice in choices.items() if isinstance(choice, Choice)}
