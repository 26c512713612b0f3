"""Writes the text of a study for labelled images, with comments, for `tailfill init`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_origin

from shared.config.base import Section
from shared.config.dataset import Source
from shared.config.search import Resources
from shared.diffusion.generators import GENERATORS
from shared.look.backbone import PACKAGED, Backbone
from shared.weights.packaged import is_installed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shared.data.preview import Preview
    from shared.data.schema import LabelSchema
    from shared.data.source import InferredSource, SourceImage
    from shared.data.tail import Tail

RESOLUTIONS = (32, 64, 96, 128, 224)
PIXEL_RESOLUTION = 64  # px; above this the pixel generator is slow on a CPU
SHOWN = 30  # classes that are listed in the study's comment
LONGEST_SLUG = 30
"""Limits the part of an experiment's name that is made of a base's name."""
SEED = 0
SIDES = (224, 128, 64)
"""Lists the resolutions at which the frozen network may see the images, in px."""


@dataclass(frozen=True)
class Design:
    """Holds the choices of a new study that decide how long it takes."""

    side: int = SIDES[0]
    """Limits the resolution at which the frozen network sees the images, in px."""
    pixel: int = PIXEL_RESOLUTION
    """Limits the resolution of the pixel generator, in px."""
    steps: int = 1500
    """Counts the training steps of the generator."""
    sampler_steps: int = 20
    """Counts the steps in which an image is drawn."""
    cap: int = 5
    """Limits the generated images per real one of a class."""
    repetitions: int = 10
    """Counts the repetitions. A verdict needs six at least."""
    trials: int = 4
    """Counts the trials per repetition."""
    search_epochs: int = 15
    final_epochs: int = 30
    stable_diffusion: bool = False
    """Says whether Stable Diffusion is fine-tuned, which needs a GPU, in place of the pixel generator."""
    folds: bool = False
    """Says whether each repetition tests on a fold of its own, with a generator of its own, in place of a test split that all share."""
    cache_gib: float = Resources().cache_gib
    """Limits the disk in GiB that the frozen network's outputs may take."""
    bases: tuple[str, ...] = ()
    """Names pretrained text-to-image models that are compared, each fine-tuned for an arm of its own, in place of any other generator."""
    backbone: Backbone | None = field(default_factory=lambda: PACKAGED if is_installed() else None)
    """Names the frozen network of the classifier; without one, a small network is trained from scratch."""

    @property
    def pretrained(self) -> bool:
        """Returns whether the generator is a pretrained model."""
        return self.stable_diffusion or bool(self.bases)


USUAL = Design()


@dataclass(frozen=True)
class DataSummary:
    """Holds the properties of labelled images from which a study is written."""

    source: InferredSource
    schema: LabelSchema
    images: list[SourceImage]
    train_counts: NDArray[np.int64]
    """Holds the number of training images of each class, `[C]`, as `prepare` would split them if it finds no two alike."""
    test_counts: NDArray[np.int64]
    """Holds the number of test images of each class, `[C]`."""
    test_images: int
    """Counts the test images."""
    tail: Tail
    sides: list[int]
    """Lists the shorter sides of some images, in pixels."""
    bad: list[str]
    """Lists the first problems, one line each."""
    bad_total: int
    """Counts all problems."""
    listed: tuple[str, ...]
    """Holds what the source says about what it listed, such as what it left out."""
    preview: Preview
    """Holds the images as a forecast sees them."""
    units: NDArray[np.int64]
    """Numbers what stays in one split, for each image, `[n]`."""

    def with_folds(self, repetitions: int) -> DataSummary:
        """Returns the properties if each of so many repetitions tests on a fold: every image is tested once, and more are left to train on."""
        import numpy as np

        from shared.config.dataset import Fold
        from shared.data.dataset import usual_counts
        from shared.data.schema import class_counts
        from shared.data.split import assign_splits
        from shared.data.tail import find_tail

        labels, fold, config = self.preview.labels, Fold(number=0, count=repetitions), self.source.dataset.split
        split, _ = assign_splits(np.full(len(labels), ""), labels, self.units, config, SEED, fold)
        usual = usual_counts(self.schema, labels, config, fold) or {}
        counts = np.array(list(usual.values()), np.int64)
        tail = find_tail(self.schema, counts)
        if set(tail.fill_to) != set(self.tail.fill_to):  # rounding must not change which classes the study is about
            tail = self.tail
        return replace(
            self,
            train_counts=counts,
            test_counts=class_counts(labels),
            test_images=len(labels),
            tail=tail,
            preview=replace(self.preview, split=split, usual_counts=usual),
        )


def _resolution(summary: DataSummary) -> int:
    """Returns the largest of the usual resolutions that is not above the median of the images' shorter sides."""
    return max([r for r in RESOLUTIONS if r <= _median_side(summary)], default=RESOLUTIONS[0])


def usual_side(summary: DataSummary) -> int:
    """Returns the side in pixels at which a frozen network sees the images if nothing is traded for the time."""
    return min(max(_resolution(summary), SIDES[-1]), SIDES[0])


def _median_side(summary: DataSummary) -> int:
    return sorted(summary.sides)[len(summary.sides) // 2]


def study_text(summary: DataSummary, name: str, design: Design = USUAL, notes: Sequence[str] = ()) -> str:
    """Returns a valid study for the data as YAML with comments; `notes` are comments about the time that it takes."""
    resolution = _resolution(summary)
    head = f"""\
# Written by `tailfill init`: a guess, which you should check. `tailfill validate THIS_FILE --plan` says what it would run.
{_comments(notes)}name: {name}
seed: {SEED}

{_dataset_text(summary, resolution, design)}
{_resources_text(design)}{_rare_text(summary)}
"""
    generated = f"""\
{_generator_text(resolution, design)}
# Each rare class is filled up to the median of its group, real and generated images together, with at most `cap` generated for each real one.
generate: {{{_fill_text(summary, design.cap)}, cap: {design.cap}, {_sampling_text(design)}image_to_image: {{share: 0.5, strength: 0.65}}}}
score: {{folds: 3, epochs: 12}}
# Which generated images are used for training; a change here generates nothing again.
accept: {{plausibility: [0.2, 0.95], copies: refuse}}

"""
    if not summary.tail.fill_to:
        return head + generated + _classifier_text(resolution, design) + _without_generated_images(design)
    return (
        head
        + generated
        + _classifier_text(resolution, design)
        + f"""\
synthetic: {{share: 0.2, loss_weight: 0.5, until: 0.6}}

# Each arm gets the same search, so that the baseline is tuned as hard as the others.
{_search_text(design)}
{_repetitions_text(design)}
final: {{epochs: {design.final_epochs}, seeds: {design.repetitions}}}
verdict: {{metric: rare_macro_f1, baseline: real, generators: {"each" if design.folds else "one"}}}
experiments:
  - {{name: real, title: Real images only, images: real}}
{_generated_arms(design)}
  - {{name: placebo, title: The same recipe with copies of real images, images: real+copies}}
"""
    )


def _repetitions_text(design: Design) -> str:
    if design.folds:
        return f"""\
# Each of the {design.repetitions} repetitions is the whole procedure anew: a generator, a search, a pool of generated images and a training. `test: folds`
# needs `generators: each`, as one generator for all would have seen the images that each repetition tests on."""
    return f"""\
# Each of the {design.repetitions} repetitions is the whole procedure anew: a search, a pool of generated images and a training. `generators: each` would also
# train a generator for each, which costs more, and then the verdict holds for the recipe and not for one generator."""


def _generated_arms(design: Design) -> str:
    """Returns the experiments with generated images: one per base if several are compared."""
    if len(design.bases) < 2:
        return "  - {name: synthetic, title: Real and generated images, images: real+synthetic}"
    lines = []
    for number, base in enumerate(design.bases, 1):
        slug = (
            re.sub(r"[^a-z0-9]+", "-", base.rstrip("/").rpartition("/")[2].lower()).strip("-")[:LONGEST_SLUG].strip("-")
        )
        title = f"Real images and images by {base}"
        own = f", finetune: {{base: {_quoted(base)}}}" if number > 1 else ""
        name = f"by-{number}-{slug}".rstrip("-")
        lines.append(f"  - {{name: {name}, title: {_quoted(title)}, images: real+synthetic{own}}}")
    return "\n".join(lines)


def _without_generated_images(design: Design) -> str:
    return f"""
# No class is rare, so there is nothing to fill, and this study only tunes a classifier on the real images. To ask about generated images all the same, name
# classes in `rare`, and add experiments with `images: real+synthetic` and `images: real+copies` and a `verdict`.
{_search_text(design)}
final: {{epochs: {design.final_epochs}, seeds: {design.repetitions}}}
verdict: none
experiments:
  - {{name: real, title: Real images only, images: real}}
"""


def _search_text(design: Design) -> str:
    return f"""\
search:
  trials: {design.trials * design.repetitions} # {design.trials} per repetition
  epochs: {design.search_epochs}
  objective: val_macro_f1
  space:
    training.lr: {{low: 0.0005, high: 0.01, log: true}}
    training.weight_decay: {{low: 0.00001, high: 0.01, log: true}}
    training.dropout: {{low: 0.0, high: 0.5}}"""


def _classifier_text(resolution: int, design: Design) -> str:
    """Returns the classifier and its training: a head on the design's frozen network, else a small network from scratch."""
    if design.backbone is not None:
        network = design.backbone
        revision = f"  revision: {json.dumps(network.revision)}\n" if network.revision else ""
        side = network.fitting(min(max(resolution, SIDES[-1]), design.side))
        return f"""\
# The classifier: a small head on a frozen pretrained network ({network.about}), which runs over each image and its mirror image once, so
# that a training takes seconds on a CPU. `model` may be any timm model; `pretrained: true` downloads its weights from the hub. `trainable: all` trains the
# whole network.
classifier:
  model: {network.model}
  pretrained: {json.dumps(network.pretrained) if network.pretrained is True else network.pretrained}
{revision}  trainable: head
  head: [128]
  resolution: {side}
augmentation: basic
training: {{lr: 0.003, weight_decay: 0.001, optimizer: adamw, dropout: 0.2, batch_size: 128, warmup_epochs: 1, loss: balanced_softmax, refit_epochs: 2}}
"""
    small = resolution <= PIXEL_RESOLUTION
    return f"""\
# The classifier: any timm model. `pretrained: true` downloads its weights from the hub, which makes a much stronger baseline on photographs;
# or name a safetensors file. With pretrained weights, `trainable: layer4` or `head` is faster than `all`.
classifier: {{model: {"resnet14t" if small else "resnet18"}, pretrained: false, trainable: all, head: [128]}}
augmentation: soft
training: {{lr: 0.002, weight_decay: 0.0001, dropout: 0.2, batch_size: {128 if small else 64}, warmup_epochs: 2, loss: balanced_softmax, refit_epochs: 2}}
"""


def _comments(notes: Sequence[str]) -> str:
    return "".join(f"# {note}\n" for note in notes)


def _generator_text(resolution: int, design: Design) -> str:
    """Returns the section of the generator, with comments that offer the others."""
    chosen = "text-to-image" if design.bases else "stable-diffusion" if design.stable_diffusion else "pixel"
    pixel = min(resolution, design.pixel)
    settings = {
        "pixel": f"resolution: {pixel}, steps: {design.steps}, batch_size: {64 if pixel <= 32 else 32}",
        **{name: kind.example for name, kind in GENERATORS.items() if kind.example},
    }
    if design.bases:
        settings[chosen] = f"base: {_quoted(design.bases[0])}, method: lora, learning_rate: 1e-4, steps: 1500"
    others = [
        f"# Or: {GENERATORS[n].about}:\n# finetune: {{generator: {n}, {settings[n]}}}" for n in settings if n != chosen
    ]
    return "\n".join(
        [
            f"# The generator: {GENERATORS[chosen].about}.",
            f"finetune: {{generator: {chosen}, {settings[chosen]}}}",
            *others,
        ]
    )


def _sampling_text(design: Design) -> str:
    """Returns how images are drawn; Stable Diffusion needs more guidance and steps than the pixel generator, and newer bases know their own."""
    if design.bases:
        return ""
    return (
        "guidance: 7.5, steps: 30, " if design.stable_diffusion else f"guidance: 2.0, steps: {design.sampler_steps}, "
    )


def _fill_text(summary: DataSummary, cap: int) -> str:
    """Returns `fill_to`, with a `quota` for the rare classes whose group has another median than the first's."""
    medians = list(summary.tail.fill_to.values())
    fill_to = medians[0] if medians else max(sorted(summary.train_counts.tolist())[summary.schema.width // 2], 1)
    others = {name: median for name, median in summary.tail.fill_to.items() if median != fill_to}
    if not others:
        return f"fill_to: {fill_to}"
    counts = dict(zip(summary.schema.class_names, summary.train_counts.tolist(), strict=True))
    quota = {name: min(median - counts[name], cap * counts[name]) for name, median in others.items()}
    entries = ", ".join(f"{_quoted(name)}: {images}" for name, images in quota.items())
    return f"fill_to: {fill_to}, quota: {{{entries}}}"


def _dataset_text(summary: DataSummary, resolution: int, design: Design) -> str:
    lines = ["# Where the labelled images come from.", "dataset:", *_source_lines(summary.source)]
    lines.append(f"  resolution: {resolution} # px; the median of the images' shorter sides is {_median_side(summary)}")
    lines.append("  fit: squash # or crop, pad")
    if design.folds:
        lines.append(
            "  # The data has no splits. Each repetition tests on a fold of its own, and its search, generator and training see the others,"
        )
        lines.append(
            "  # so that every image is tested once. A share in place of `folds`, such as 0.15, holds out one test split for all repetitions."
        )
        lines.append("  split: {val: 0.15, test: folds} # stratified")
    elif all(image.split is None for image in summary.images):
        lines.append("  split: {val: 0.15, test: 0.15} # stratified; the data has no splits")
    lines.append(
        f"  on_bad: fail # or skip; {summary.bad_total} bad rows or paths are known, but prepare alone decodes all images"
    )
    lines.append("  on_leak: drop # removes an image that is in two splits from one of them")
    return "\n".join(lines) + "\n"


def _resources_text(design: Design) -> str:
    """Returns the section of the resources, empty if they are the usual ones."""
    if design.cache_gib == USUAL.cache_gib:
        return ""
    return f"""\
# The outputs of the frozen network take more disk than usual.
resources: {{cache_gib: {design.cache_gib:g}}}

"""


def _source_lines(source: InferredSource) -> list[str]:
    """Returns the YAML lines of the source's own fields that are set, with comments; `_dataset_text` has those of all sources."""
    lines = [f"  # Check: {note}." for note in source.notes]
    for name, value in _set_fields(source.dataset):
        if name in Source.model_fields:
            continue
        comment = f" # {source.comments[name]}" if name in source.comments else ""
        if value is None and comment:
            lines.append(f" {comment}")
        elif isinstance(value, dict):
            lines.append(f"  {name}:{comment}")
            lines += [f"    {_quoted(key)}: {_flow(inner)}" for key, inner in value.items()]
        elif value is not None:
            lines.append(f"  {name}: {_field(source.dataset, name)}{comment}")
    return lines


def _set_fields(section: Section) -> list[tuple[str, Any]]:
    """Returns the fields that were set, with their values, in the order of their declaration."""
    return [(name, getattr(section, name)) for name in type(section).model_fields if name in section.model_fields_set]


def _flow(value: Any) -> str:
    """Returns a value as YAML on one line."""
    if isinstance(value, Section):
        fields = [name for name, inner in _set_fields(value) if inner is not None]
        return f"{{{', '.join(f'{name}: {_field(value, name)}' for name in fields)}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_flow, value))}]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _field(section: Section, name: str) -> str:
    """Returns a field's value as YAML on one line, without quotes if it is a word of a fixed choice."""
    value = getattr(section, name)
    fixed = get_origin(type(section).model_fields[name].annotation) is Literal
    return str(value) if fixed and str(value).isalnum() else _flow(value)


def _rare_text(summary: DataSummary) -> str:
    import numpy as np

    order = np.argsort(summary.train_counts, kind="stable")[:SHOWN]
    names = summary.schema.class_names
    table = [
        f"#   {summary.train_counts[i]:>7,}  {' '.join(names[i].split())}" for i in order if names[i].isprintable()
    ]
    more = [f"#   and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    rare = f"[{', '.join(map(_quoted, summary.tail.fill_to))}]"
    return "\n".join(
        [
            "# The rare classes are those with under half of the median of their group, at most a third of its classes, unless the largest class has less",
            "# than three times as many images as the smallest. `below: N` makes every class with fewer than N training images rare, in addition to these.",
            "# The training images of the smallest classes:",
            *table,
            *more,
            f"rare: {{below: null, classes: {rare}}}",
        ]
    )


def _quoted(value: Any) -> str:
    """Returns a string as YAML's double-quoted scalar on one line."""
    import yaml

    text = yaml.dump(str(value), Dumper=yaml.SafeDumper, default_style='"', allow_unicode=True, width=1 << 30)
    return text.removesuffix("\n")
