"""`tailfill init DATA`: looks at labelled images and writes a commented study for them, and a contact sheet to check it by."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_origin

from shared.config.base import Section
from shared.config.dataset import Source
from shared.config.study import least_seeds
from shared.diffusion.generators import GENERATORS
from shared.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from shared.data.schema import LabelSchema
    from shared.data.source import InferredSource, SourceImage

RESOLUTIONS = (32, 64, 96, 128, 224)
MEASURED = 200  # images whose sizes are looked at
PIXEL_RESOLUTION = 64  # px: above, the pixel generator is slow on a CPU
SHOWN = 30  # classes in the study's comment
ARMS = 3
SEEDS = 3


@dataclass(frozen=True)
class Found:
    """What a look at the data says."""

    source: InferredSource
    schema: LabelSchema
    images: list[SourceImage]
    train_counts: NDArray[np.int64]
    """`[C]`: images of each class that there will be to train on."""
    sides: list[int]
    """The shorter sides of some images, in pixels."""
    bad: list[str]
    """First problems, one a line."""
    bad_total: int


def init(data: Path, out: Path) -> list[str]:
    """Writes a study for the images in `data` (a folder a class, or a CSV) to `out`, and `<out>-contact.png` beside it.

    Returns lines that say what was found and what to do next. Raises DataError where `data` is neither, or holds no usable image,
    and ConfigError where `out` is there already or cannot be written.
    """
    from shared.data.infer_source import infer_source
    from shared.data.sources.digest import check_outside

    source = infer_source(data)  # first: if both are wrong, DATA is what was typed
    if out.exists():
        raise ConfigError(f"{out}: is there already; move it away, or name another file with --out")
    check_outside(out, str(source.root), "name a file elsewhere with --out")
    found = _look(data, source)
    sheet = out.with_name(f"{out.stem}-contact.png")
    text = study_text(found, _study_name(data))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sheet(found).save(sheet, "PNG")
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written ({error.strerror}); name another file with --out") from error
    return [*_summary(found), f"study: {out}", f"contact sheet: {sheet}", f"next: tailfill validate {out} --plan"]


def _look(data: Path, source: InferredSource) -> Found:
    import numpy as np

    from shared.data.problems import Problems
    from shared.data.schema import class_counts
    from shared.data.sources.table import open_source

    problems = Problems("skip")
    listing = open_source(source.dataset, source.root, 0, problems)
    images = list(listing.images)
    sides = _sides(images)
    if not images or not sides:
        why = f"; {problems.lines[0]}" if problems.lines else ""
        raise DataError(f"{data}: holds no usable image{why}")
    given = [image for image in images if image.split == "train"]
    labels = np.stack([image.labels for image in given or images])
    share = 1.0 if given else 1 - source.dataset.split.val - source.dataset.split.test
    counts = np.floor(class_counts(labels) * share).astype(np.int64)
    return Found(source, listing.schema, images, counts, sides, problems.lines[:3], sum(problems.counts.values()))


def _sides(images: Sequence[SourceImage]) -> list[int]:
    from PIL import Image

    from shared.data.canonical import DAMAGED, FORMATS

    sides = []
    for image in images[:: max(1, len(images) // MEASURED)]:
        if not isinstance(image.content, Path):
            sides.append(min(image.content.shape[:2]))
            continue
        try:
            with Image.open(image.content, formats=FORMATS) as opened:
                sides.append(min(opened.size))
        except (*DAMAGED, Image.DecompressionBombError):  # `prepare` reports it with its reason
            continue
    return sides


def _study_name(data: Path) -> str:
    resolved = data.resolve()
    stem = resolved.stem if resolved.is_file() else resolved.name
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:40].strip("-") or "study"


def _resolution(found: Found) -> int:
    """The largest usual side that the middle image still has."""
    middle = sorted(found.sides)[len(found.sides) // 2]
    return max([r for r in RESOLUTIONS if r <= middle], default=RESOLUTIONS[0])


def _below(counts: NDArray[np.int64]) -> int:
    """Half the middle class's count where any class lies under it, else just above the smallest class."""
    import numpy as np

    present = np.sort(counts[counts > 0])
    if not len(present):
        return 1
    half = int(np.median(present)) // 2
    return half if present[0] < half else int(present[0]) + 1


def study_text(found: Found, name: str) -> str:
    """The study as YAML with comments; it loads as a Study."""
    resolution, below = _resolution(found), _below(found.train_counts)
    small = resolution <= PIXEL_RESOLUTION
    pixel = min(resolution, PIXEL_RESOLUTION)
    batch = 64 if pixel <= 32 else 32
    seeds_wanted = least_seeds(ARMS - 1, 0.05)
    return f"""\
# Written by `tailfill init`: a guess to read over. `tailfill validate THIS_FILE --plan` says what it would run.
name: {name}
seed: 0

{_dataset_text(found, resolution)}
{_rare_text(found, below)}
# The generator: {GENERATORS["pixel"].about}.
finetune: {{generator: pixel, resolution: {pixel}, steps: 1500, batch_size: {batch}}}
{_other_generators()}
# What each rare class is filled up to (real and generated training images), with at most `cap` generated for each real one.
generate: {{fill_to: {max(below, 2)}, cap: 5, guidance: 2.0, steps: 20, image_to_image: {{share: 0.5, strength: 0.65}}}}
score: {{folds: 3, epochs: 12}}
# Which generated images are trained on; a change here generates nothing again.
accept: {{plausibility: [0.2, 0.95], copies: 0.05}}

# The classifier: any timm model. `pretrained: true` fetches its weights from the hub and makes a much stronger baseline on photographs;
# or name a safetensors file. With it, `trainable: layer4` or `head` is quicker than `all`.
classifier: {{model: {"resnet14t" if small else "resnet18"}, pretrained: false, trainable: all, head: [128]}}
augmentation: soft
training: {{lr: 0.002, weight_decay: 0.0001, dropout: 0.2, batch_size: {128 if small else 64}, warmup_epochs: 2, loss: balanced_softmax, refit_epochs: 2}}
synthetic: {{share: 0.2, loss_weight: 0.5, until: 0.6}}

# Each arm gets the same search; the baseline is tuned as hard as the others.
search:
  trials: 8
  epochs: 15
  objective: val_macro_f1
  space:
    training.lr: {{low: 0.0003, high: 0.01, log: true}}
    training.weight_decay: {{low: 0.00001, high: 0.01, log: true}}
    training.dropout: {{low: 0.0, high: 0.5}}
# A first look: {SEEDS} seeds. A verdict over {ARMS - 1} comparisons needs {seeds_wanted} or more (10 is a good number); set `provisional: false` then.
final: {{epochs: 30, seeds: {SEEDS}}}
verdict: {{metric: rare_macro_f1, baseline: real, provisional: true}}
experiments:
  - {{name: real, title: Real images only, images: real}}
  - {{name: synthetic, title: Real and generated images, images: real+synthetic}}
  - {{name: placebo, title: The same recipe with copies of real images, images: real+copies}}
"""


def _other_generators() -> str:
    """What may stand in the study in place of the pixel generator, as comments."""
    offered = {name: kind for name, kind in GENERATORS.items() if kind.example}
    return "\n".join(
        f"# Or: {kind.about}:\n# finetune: {{generator: {name}, {kind.example}}}" for name, kind in offered.items()
    )


def _dataset_text(found: Found, resolution: int) -> str:
    lines = ["# Where the labelled images come from.", "dataset:", *_source_lines(found.source)]
    middle = sorted(found.sides)[len(found.sides) // 2]
    lines.append(f"  resolution: {resolution} # px; the middle image's shorter side has {middle}")
    lines.append("  fit: squash # or crop, pad")
    if all(image.split is None for image in found.images):
        lines.append("  split: {val: 0.15, test: 0.15} # stratified; the data names no split")
    lines.append(
        f"  on_bad: fail # or skip: {found.bad_total} bad rows or paths were listed; the images themselves are opened by prepare"
    )
    lines.append("  on_leak: drop # images that stand equal in two splits leave the larger one")
    return "\n".join(lines) + "\n"


def _source_lines(source: InferredSource) -> list[str]:
    """Writes what is set of the source's own fields, each with its comment; those of all sources are written by `_dataset_text`."""
    lines = []
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
    """Returns a field's value as YAML on one line; a word of a fixed choice needs no quotes."""
    value = getattr(section, name)
    fixed = get_origin(type(section).model_fields[name].annotation) is Literal
    return str(value) if fixed and str(value).isalnum() else _flow(value)


def _rare_text(found: Found, below: int) -> str:
    import numpy as np

    order = np.argsort(found.train_counts, kind="stable")[:SHOWN]
    names = found.schema.class_names
    table = [f"#   {found.train_counts[i]:>7,}  {' '.join(names[i].split())}" for i in order if names[i].isprintable()]
    more = [f"#   and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return "\n".join(
        [
            "# Classes with fewer training images than this are filled. Training images of the rarest classes, about:",
            *table,
            *more,
            f"rare: {{below: {below}}}",
            "",
        ]
    )


def _quoted(value: Any) -> str:
    """A string as YAML's double-quoted scalar on one line."""
    import yaml

    text = yaml.dump(str(value), Dumper=yaml.SafeDumper, default_style='"', allow_unicode=True, width=1 << 30)
    return text.removesuffix("\n")


def _sheet(found: Found) -> Any:
    import numpy as np

    from shared.data.canonical import canonical
    from shared.data.class_sheet import SIDE, class_sheet
    from shared.data.imageset import decode
    from shared.data.problems import BadImage

    def thumbnail(position: int) -> NDArray[np.uint8] | None:
        image = found.images[position]
        try:
            return decode(canonical(image.content, SIDE, "squash").data, SIDE, image.path)
        except BadImage:  # `prepare` reports it
            return None

    return class_sheet(found.schema, np.stack([image.labels for image in found.images]), thumbnail)


def _summary(found: Found) -> list[str]:
    import numpy as np

    from shared.data.source import SPLITS

    below = _below(found.train_counts)
    rare = [
        n for n, count in zip(found.schema.class_names, found.train_counts.tolist(), strict=True) if 0 < count < below
    ]
    kinds = ", ".join(f"{group.name} ({group.kind}, {len(group.classes)} classes)" for group in found.schema.groups)
    lines = [
        f"found: {len(found.images):,} images, label groups {kinds}",
        f"rare (under {below} training images): {', '.join(rare[:8])}{f' and {len(rare) - 8} more' if rare[8:] else ''}",
    ]
    counts = (np.stack([image.labels for image in found.images]) == 1).sum(axis=0)
    if few := [n for n, count in zip(found.schema.class_names, counts.tolist(), strict=True) if count < len(SPLITS)]:
        lines.append(
            f"too few images to train, validate and test on: {', '.join(few[:8])}; add some, or take the class out"
        )
    if found.bad_total:
        lines.append(
            f"bad: {found.bad_total} rows or files, fix them or set dataset.on_bad: skip; the first: {found.bad[0]}"
        )
    return lines
