"""Which weights of the Hugging Face hub a study names, and the roles under which stages are given them.

The stage `weights` fetches them once, on a machine that may go online; all others read what it committed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from shared.artifacts.open import is_s3
from shared.config.generation import AnyFinetune
from shared.config.resolve import ResolvedExperiment
from shared.config.search import Choice
from shared.config.stages import PRETRAINED, WeightsConfig
from shared.config.training import Classifier

BASE = "weights/base"
"""Role of the base model of `finetune`."""
JUDGES = "weights/judges"
"""Role of the weights of the judges' classifier."""
MODEL = "classifier.model"
Value = bool | int | float | str


def role_of(model: str) -> str:
    """Role of the weights of a timm model that an arm is trained from."""
    return f"weights/{model}"


def is_hub_name(base: str) -> bool:
    """Whether a base is `owner/name` on the hub, and no folder here, nor in a bucket."""
    return not is_s3(base) and base[:1] not in "/.~" and base.count("/") == 1 and not Path(base).is_dir()


def hub_base(finetune: AnyFinetune) -> WeightsConfig | None:
    """Returns what fetches the base model, or None if there is none or it lies elsewhere than on the hub."""
    base = finetune.base_location
    if base is None or not is_hub_name(base):
        return None
    return WeightsConfig(kind=finetune.generator, name=base, revision=finetune.base_revision)


def hub_models(classifier: Classifier, searched: Mapping[str, Collection[Value]]) -> tuple[WeightsConfig, ...]:
    """The timm models whose hub weights a classifier may begin with; `searched` are values that a search may give it, by path."""
    if classifier.pretrained is not True and not any(value is True for value in searched.get(PRETRAINED, ())):
        return ()
    names = dict.fromkeys([classifier.model, *(str(name) for name in searched.get(MODEL, ()))])
    return tuple(
        WeightsConfig(kind="timm", name=name, revision=classifier.revision if name == classifier.model else None)
        for name in names
    )


def searched_values(experiment: ResolvedExperiment) -> dict[str, tuple[Value, ...]]:
    """The values between which the experiment's search chooses, of the paths that name weights."""
    space = experiment.search.space if experiment.search.trials else {}
    choices = {path: space.get(path) for path in (PRETRAINED, MODEL)}
    return {path: choice.values for path, choice in choices.items() if isinstance(choice, Choice)}
