"""Looks at the weights that a study names on this machine or in a bucket, before a stage on a GPU does: by names and shapes alone.

Weights on the hub are looked at by the stage `weights`. In a bucket only listings and the headers of files are read.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from shared.artifacts.open import is_s3
from shared.config.generation import AnyFinetune, PretrainedFinetune
from shared.config.resolve import ResolvedStudy
from shared.config.stages import PRETRAINED
from shared.config.training import Classifier
from shared.diffusion.generators import generator_kind
from shared.diffusion.text_to_image.base_files import INDEX
from shared.diffusion.text_to_image.families.about import kind_of_base
from shared.diffusion.text_to_image.families.table import check_class_tokens, side_multiple
from shared.errors import ConfigError, DataError
from shared.names import shown
from shared.settings import Settings
from shared.weights.digests import weight_locations
from shared.weights.files import WeightFiles, file_shapes, files_in_bucket, files_in_folder
from shared.weights.in_place import in_place, remedy_in_folder
from shared.weights.packaged import PROJECT, is_installed
from shared.weights.roles import ADAPTER, MODEL, is_hub_name, searched_values

MOST_LEVELS = 16  # no model has more, and a side must stay a number of pixels


def check_files(study: ResolvedStudy) -> None:
    """Raises DataError or ConfigError for the first weights, of a file, a folder or a bucket, that are damaged, incomplete or no safetensors.

    It imports no torch. Whether tensors fit their model is left to `check_weights`.
    """
    files, _ = weight_locations(study)
    for location in sorted(files):
        if files[location] == ADAPTER:
            check_adapter(location)
        else:
            file_shapes(location)
    for experiment in study.experiments:
        if experiment.images != "real":
            check_base(experiment.finetune)
            if experiment.generate.starts_from_similar and not is_installed():
                raise ConfigError(
                    f"generate.image_to_image.start_from: similar finds similar classes by a network whose weights are not installed; "
                    f"pip install {PROJECT}, or set own"
                )


def check_weights(study: ResolvedStudy) -> None:
    """Raises DataError or ConfigError for the first weights that a stage could not load."""
    for experiment in study.experiments:
        searched = searched_values(experiment)
        for model in dict.fromkeys([experiment.classifier.model, *map(str, searched.get(MODEL, ()))]):
            for value in dict.fromkeys([experiment.classifier.pretrained, *searched.get(PRETRAINED, ())]):
                _check_classifier(experiment.classifier, model, value, study.dataset.resolution)
        if experiment.images != "real":
            check_base(experiment.finetune)
            if (few := experiment.generate.few_step) is not None and not few.on_hub:
                check_adapter(few.adapter)
    if any(experiment.images != "real" for experiment in study.experiments):
        judges = study.written.classifier
        _check_classifier(judges, judges.model, judges.pretrained, study.dataset.resolution)


def _check_classifier(classifier: Classifier, model: str, value: object, resolution: int) -> None:
    if isinstance(value, str):
        from shared.weights import pretrained

        side = classifier.resolution or resolution
        pretrained.check_weights(model, value, **pretrained.size_option(model, side))


def check_adapter(location: str) -> None:
    """Raises DataError if the LoRA for few steps, a file or an object in a bucket, is not there or no safetensors file."""
    if file_shapes(location, ADAPTER) is None:
        raise DataError(f"{ADAPTER}: {location} is a pickle, which could run code when read; name a safetensors file")


def check_base(finetune: AnyFinetune) -> None:
    """Raises DataError or ConfigError if the base, in a folder or a bucket, lacks a file, has a damaged one, is of no family or of one that
    has no images of `finetune.resolution` or no `finetune.class_tokens`, or if it is neither of both nor a name on the hub."""
    at, base = finetune.base_location, generator_kind(finetune.generator).base
    if isinstance(finetune, PretrainedFinetune) and finetune.class_tokens and (kind := kind_of_base(finetune)):
        check_class_tokens(kind, finetune.base_location)
    if at is None or base is None or is_hub_name(at):
        return
    if is_s3(at):
        files, nothing = (
            files_in_bucket(at, Settings.from_environment()),
            f"there is nothing below {at}; check bucket and prefix",
        )
    else:
        files, nothing = (
            files_in_folder(Path(at)),
            f"there is no folder {at}; name a folder, an s3://bucket/prefix or a hub name",
        )
    if not files.sizes and (is_s3(at) or not Path(at).is_dir()):
        raise DataError(f"finetune.base: {nothing}")
    there = list(files.sizes)
    if missing := base.missing(there):
        name = missing[0]
        raise DataError(
            f"finetune.base {at}: has no {name}{in_place(name, there)}; {remedy_in_folder(name, there)}: it must be {base.layout}"
        )
    if base.check_index is not None:
        base.check_index(files.text(INDEX, f"finetune.base {at}: {INDEX}"), at)
    for name in base.choose(there):
        if name.endswith(".safetensors"):
            files.shapes(name, f"finetune.base {at}: {name}")
        elif name.endswith(".json") and ".safetensors.index" in name:
            _check_shards(name, files.text(name, f"finetune.base {at}: {name}"), there, at)
    levels = [_levels(files, part, at) for part in ("vae", "unet") if f"{part}/config.json" in files.sizes]
    side = finetune.resolution
    if side is not None and levels and all(levels) and side % (multiple := side_multiple(*levels)):
        raise ConfigError(f"finetune.resolution: must be a multiple of {multiple} for {at}, got {side}")


def _levels(files: WeightFiles, part: str, at: str) -> int:
    """Returns the number of levels of a VAE or a UNet by its config.json; 0 if that does not say it, which is found when it is loaded."""
    name = f"{part}/config.json"
    try:
        channels = json.loads(files.text(name, f"finetune.base {at}: {name}"))["block_out_channels"]
        return len(channels) if len(channels) <= MOST_LEVELS else 0
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0


def _check_shards(index: str, content: bytes, there: Collection[str], at: str) -> None:
    """Raises DataError if an index of weights in parts names a part that is not there."""
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"finetune.base {at}: {index} is no JSON ({str(error)[:200]}); copy it again") from error
    named = tree.get("weight_map") if isinstance(tree, dict) else None
    if not isinstance(named, dict) or not named:
        raise DataError(f"finetune.base {at}: {index} has no weight_map; copy the folder again")
    folder = index.rpartition("/")[0]
    for part in dict.fromkeys(map(str, named.values())):
        if f"{folder}/{part}" not in there:
            raise DataError(
                f"finetune.base {at}: {index} names the part {shown(part)}, which is not there; copy the folder again"
            )
