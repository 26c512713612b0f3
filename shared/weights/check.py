"""Looks at the weights on this machine that a study names, before a stage on a GPU does: by names and shapes alone.

Weights on the hub are looked at by the stage `weights`, and those in a bucket by the stages that download them.
"""

from __future__ import annotations

from pathlib import Path

from shared.artifacts.open import is_s3
from shared.config.generation import AnyFinetune
from shared.config.resolve import ResolvedStudy
from shared.config.stages import PRETRAINED
from shared.config.training import Classifier
from shared.diffusion.generators import generator_kind
from shared.diffusion.text_to_image.base_files import INDEX
from shared.errors import DataError
from shared.weights.headers import tensor_shapes
from shared.weights.in_place import in_place, remedy_in_folder
from shared.weights.roles import MODEL, is_hub_name, searched_values


def check_weights(study: ResolvedStudy) -> None:
    """Raises DataError or ConfigError for the first weights that a stage could not load."""
    for experiment in study.experiments:
        searched = searched_values(experiment)
        for model in dict.fromkeys([experiment.classifier.model, *map(str, searched.get(MODEL, ()))]):
            for value in dict.fromkeys([experiment.classifier.pretrained, *searched.get(PRETRAINED, ())]):
                _check_classifier(experiment.classifier, model, value, study.dataset.resolution)
        if experiment.images != "real":
            check_base(experiment.finetune)
    if any(experiment.images != "real" for experiment in study.experiments):
        judges = study.written.classifier
        _check_classifier(judges, judges.model, judges.pretrained, study.dataset.resolution)


def _check_classifier(classifier: Classifier, model: str, value: object, resolution: int) -> None:
    if isinstance(value, str):
        from shared.weights import pretrained

        side = classifier.resolution or resolution
        pretrained.check_weights(model, value, **pretrained.size_option(model, side))


def check_base(finetune: AnyFinetune) -> None:
    """Raises DataError if the base is a folder that lacks a file, has a damaged one or is of no family, or neither a folder nor a name on the hub."""
    at, base = finetune.base_location, generator_kind(finetune.generator).base
    if at is None or base is None or is_s3(at) or is_hub_name(at):
        return
    folder = Path(at)
    if not folder.is_dir():
        raise DataError(f"finetune.base: there is no folder {at}; name a folder, an s3://bucket/prefix or a hub name")
    there = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    if missing := base.missing(there):
        name = missing[0]
        raise DataError(
            f"finetune.base {at}: has no {name}{in_place(name, there)}; {remedy_in_folder(name, there)}: it must be {base.layout}"
        )
    if base.check_index is not None:
        base.check_index((folder / INDEX).read_bytes(), at)
    for name in base.choose(there):
        if name.endswith(".safetensors"):
            tensor_shapes(folder / name, f"finetune.base {at}: {name}")
