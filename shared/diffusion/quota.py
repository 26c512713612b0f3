"""Plans the images to generate: how many of which class, with which labels and with which seed. It imports no torch.

How images are counted
    Each image is made for one target (`filled`): a rare class, or an entry of `generate.quota`. It has all labels of the training image
    that it takes them from (`source`), so it may also have another rare class.
    - Under `fill_to` every image counts for *each* of its rare classes, because a classifier sees it as an example of each. A class is
      full when real and generated images together reach `fill_to`, or generated ones reach the cap. Label combinations that would
      overfill another class are drawn only if there is no other combination.
    - `quota` and `total` are exact numbers of images *made for* a target, whatever other classes they have. Images of `quota` come
      first, are part of `total`, and count for the classes that `fill_to` fills.

Image-to-image starts from the source itself, so that the labels are those of the image at the start. With `start_from: similar` it starts
from a training image of another class of the filled class's group: of one that is not rare, and that looks like it, as the caller finds out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared.config.generation import Generate
from shared.config.near import near
from shared.config.seeds import hashed_seed
from shared.data.schema import Labels, LabelSchema, class_counts
from shared.errors import ConfigError


@dataclass(frozen=True)
class PlannedImage:
    """Describes one image to generate."""

    index: int
    """Gives the position in the plan, from 0, from which the seed is derived."""
    pool: int
    """Gives the number of its pool."""
    seed: int
    filled: str
    """Names the target that it is made for: `group/class`, or a crossing."""
    source: int
    """Gives the row of the training split whose labels it has."""
    start: int | None
    """Gives the row of the training split from which image-to-image starts; None starts from noise."""
    strength: float | None


@dataclass(frozen=True)
class StartingPoints:
    """Holds the classes from whose images those of a target may start."""

    target: str
    own: NDArray[np.int64]
    """Lists the rows of the training split with the filled class; of a crossing, with the one that has the fewest images."""
    rows: Mapping[int, NDArray[np.int64]]
    """Maps the columns of the other classes of its group that are not rare to their rows, without those that have the filled class too."""


Starts = Mapping[str, Sequence[NDArray[np.int64]]]
"""Holds, by target, the rows of the training split from which its images may start: those of each similar class. None is empty."""


@dataclass
class Target:
    """Describes a target to fill, and its progress."""

    name: str
    carries: NDArray[np.bool_]
    """Says whether a training image has all its classes, `[n]`."""
    wanted: int
    """Tells how many images to make in one pool."""
    exact: bool
    """Says whether only images made for it count (`quota`, `total`); otherwise every image that has its classes counts (`fill_to`)."""
    have: int = 0
    """Counts the images that count so far."""
    made: int = 0
    """Counts the images made for it so far."""
    order: list[int] = field(default_factory=list)
    """Lists the rows that are still to be drawn before any is drawn again."""


def plan_images(
    generate: Generate,
    schema: LabelSchema,
    labels: Labels,
    rare: NDArray[np.int64],
    seed: int,
    pool: int,
    similar: Callable[[Sequence[StartingPoints]], Starts] | None = None,
) -> list[PlannedImage]:
    """Returns the plan of one pool in the order of its indices; it is the same for the same arguments.

    `labels` are the training split's, `[n, C]`, `rare` the columns of the rare classes. The targets advance together. With `start_from:
    similar`, `similar` chooses among the classes from which the images of each target may start; without it, the plan is one to be counted,
    and its images start from any of these.

    Raises ConfigError if `quota` names an unknown class or one without images, if it exceeds `total`, if there is nothing to make, and if images
    should start from similar classes where there is no other class, or only rare ones.
    """
    drawn = _drawn(generate, schema, labels, rare, seed, pool)
    starts: Starts = {}
    if generate.starts_from_similar:
        filled = dict.fromkeys(name for name, _, starts_from_image in drawn if starts_from_image)
        points = [starting_points(schema, labels, rare, name) for name in filled]
        starts = {p.target: list(p.rows.values()) for p in points} if similar is None else similar(points)
    plan = []
    for index, (name, source, starts_from_image) in enumerate(drawn):
        strength = generate.image_to_image.strength if generate.image_to_image and starts_from_image else None
        start = None
        if strength is not None:
            start = _start_row(starts[name], seed, pool, index) if generate.starts_from_similar else source
        plan.append(PlannedImage(index, pool, image_seed(seed, pool, index), name, source, start, strength))
    return plan


def starting_points(schema: LabelSchema, labels: Labels, rare: NDArray[np.int64], target: str) -> StartingPoints:
    """Returns the classes from whose images those of a target may start; raises ConfigError if there is none."""
    counts = class_counts(labels)
    filled = min(target_columns(schema, target), key=lambda column: int(counts[column]))
    group, columns = next((name, c) for name, c in schema.slices().items() if c.start <= filled < c.stop)
    others = [column for column in range(columns.start, columns.stop) if column != filled and column not in rare]
    without = labels[:, filled] == 0
    found = {column: np.flatnonzero((labels[:, column] == 1) & without) for column in others}
    found = {column: rows for column, rows in found.items() if len(rows)}
    if not found:
        raise ConfigError(
            f"generate.image_to_image.start_from: similar needs another class of the group {group} that is not rare and has training images, "
            f"for {target} to start from; set own, or lower rare.below"
        )
    return StartingPoints(target, np.flatnonzero(labels[:, filled] == 1), found)


def _start_row(classes: Sequence[NDArray[np.int64]], seed: int, pool: int, index: int) -> int:
    """Returns the row from which an image starts: each class is as likely, and so is each of its rows."""
    row, chosen = divmod(hashed_seed("start", seed, pool, index), len(classes))
    return int(classes[chosen][row % len(classes[chosen])])


def image_seed(seed: int, pool: int, index: int) -> int:
    """Returns the seed of image `index` of a pool, a hash of the study's seed, the pool and the index, so that seeds are unrelated."""
    return hashed_seed("generate", seed, pool, index)


def wanted_images(
    generate: Generate, schema: LabelSchema, counts: NDArray[np.int64], rare: NDArray[np.int64]
) -> dict[str, int]:
    """Returns the number of images to make in one pool, by target, from the training counts `[C]` alone.

    The numbers are exact under `quota` and `total`; under `fill_to` they are upper bounds, as an image may count for several rare
    classes. Raises ConfigError as plan_images does.
    """
    quota = {name: number for name, number in generate.quota.items() if target_columns(schema, name)}
    unfilled = [int(column) for column in rare if schema.class_names[column] not in quota]
    lack = {schema.class_names[c]: _lack(generate, int(counts[c])) for c in unfilled}
    if generate.total is not None:
        left = generate.total - sum(quota.values())
        if left < 0 or (left > 0 and not sum(lack.values())):
            raise ConfigError(
                f"generate.total: must be {'at least' if left < 0 else 'exactly'} the {sum(quota.values())} images that "
                f"generate.quota asks for{'' if left < 0 else ', as no rare class lacks any'}, got {generate.total}"
            )
        lack = _shared_out(left, lack)
    wanted = quota | lack
    if not sum(wanted.values()):
        raise ConfigError(_nothing_to_make(generate, schema, counts, rare))
    return wanted


def target_columns(schema: LabelSchema, name: str) -> tuple[int, ...]:
    """Returns the columns of a target `group/class` or `group/class & group/class`.

    Raises ConfigError, with similar names, for an unknown class.
    """
    columns = []
    for part in name.split("&"):
        part = part.strip()
        if part not in schema.class_names:
            raise ConfigError(
                f"generate.quota: {part!r} in {name!r} is no class, named as group/class{near(part, list(schema.class_names))}"
            )
        columns.append(schema.column(part))
    return tuple(columns)


def _lack(generate: Generate, real: int) -> int:
    """Returns how many images a class with `real` training images lacks, limited by the cap."""
    return max(0, min(generate.fill_to - real, int(generate.cap * real)))


def _shared_out(total: int, lack: Mapping[str, int]) -> dict[str, int]:
    """Divides `total` in proportion to what each target lacks, in whole numbers that add up to it (largest remainders)."""
    if not total:
        return dict.fromkeys(lack, 0)
    every = sum(lack.values())
    shares = {name: total * number // every for name, number in lack.items()}
    remainders = sorted(lack, key=lambda name: -(total * lack[name] % every))
    for name in remainders[: total - sum(shares.values())]:
        shares[name] += 1
    return shares


def _nothing_to_make(
    generate: Generate, schema: LabelSchema, counts: NDArray[np.int64], rare: NDArray[np.int64]
) -> str:
    named = [(int(counts[c]), schema.class_names[c]) for c in (rare if len(rare) else range(schema.width))]
    listed = ", ".join(f"{name} {count}" for count, name in sorted(named)[:5])
    if not len(rare):
        return f"rare: no class is rare, so there is nothing to generate (training images: {listed}); raise rare.below or name classes"
    return f"generate.fill_to: no rare class lacks images at {generate.fill_to} (training images: {listed}); raise it"


def _targets(generate: Generate, schema: LabelSchema, labels: Labels, rare: NDArray[np.int64]) -> list[Target]:
    targets = []
    for name, wanted in wanted_images(generate, schema, class_counts(labels), rare).items():
        columns = target_columns(schema, name)
        carries = (labels[:, columns] == 1).all(axis=1)
        if wanted and not carries.any():
            raise ConfigError(
                f"generate.quota: {name!r} asks for {wanted} images, but no training image has it to take the other labels from"
            )
        exact = name in generate.quota or generate.total is not None
        targets.append(Target(name, carries, wanted, exact))
    return targets


def _drawn(
    generate: Generate, schema: LabelSchema, labels: Labels, rare: NDArray[np.int64], seed: int, pool: int
) -> list[tuple[str, int, bool]]:
    """Returns the images of one pool in order: the target of each, its source row, and whether it starts from that image.

    The next image is always made for the target that has reached the smallest share of its number.
    """
    targets = _targets(generate, schema, labels, rare)
    share = generate.image_to_image.share if generate.image_to_image is not None else 0.0
    rng = np.random.default_rng([seed, pool])
    images: list[tuple[str, int, bool]] = []
    while open_targets := [t for t in targets if t.have < t.wanted]:
        # exact targets first: their images count for the others
        target = min(open_targets, key=lambda t: (not t.exact, t.have / t.wanted))
        source = _draw_source(target, targets, rng)
        # an image whose number passes a multiple of 1/share: the share is exact and evenly spread over the target
        starts = int((target.made + 1) * share + 1e-9) > int(target.made * share + 1e-9)
        images.append((target.name, source, starts))
        target.made += 1
        for other in targets:
            if other is target or (not other.exact and other.carries[source]):
                other.have += 1
    return images


def _draw_source(target: Target, targets: Sequence[Target], rng: np.random.Generator) -> int:
    """Draws a row of the target: each once before any twice, and none that overfills another target unless there are no others."""
    full = [t.carries for t in targets if t is not target and not t.exact and t.have >= t.wanted]
    good = target.carries & ~np.logical_or.reduce(full) if full else target.carries
    if not good.any():
        good = target.carries
    if not any(good[row] for row in target.order):
        target.order += rng.permutation(np.flatnonzero(target.carries)).tolist()
    return target.order.pop(next(place for place, row in enumerate(target.order) if good[row]))
