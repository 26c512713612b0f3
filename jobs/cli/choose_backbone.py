"""Chooses the frozen network of a new study: the packaged one, or one of the hub that a few folds of the training images show to be better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import ConfigError, DataError, UnavailableError
from shared.log import Log
from shared.look.backbone import PACKAGED, Backbone
from shared.weights.packaged import is_installed

if TYPE_CHECKING:
    from jobs.cli.study_text import DataSummary
    from shared.look.suspects import Judged

IMAGES = 300
"""Limits the training images by which networks are compared: classes have equally many, as far as they have so many."""
HUB = (
    Backbone("convnext_tiny.in12k_ft_in1k", True, "ConvNeXt", 32),
    Backbone("vit_small_patch14_dinov2.lvd142m", True, "DINOv2", 14),
    Backbone("vit_small_patch16_dinov3.lvd1689m", True, "DINOv3", 16),
    Backbone("vit_base_patch16_siglip_224.v2_webli", True, "SigLIP 2", 16),
)
"""Lists networks whose weights are on the hub, the least work first."""

log = Log("init")

Recalls = dict[tuple[str, str], list[bool]]
"""Says of each judged image of a class, by group and class, whether a head that had not seen it gave it that class."""


@dataclass(frozen=True)
class Choice:
    """Holds the network that a study should take, if the weights of any can be had, and says why."""

    backbone: Backbone | None
    lines: tuple[str, ...] = ()


def choose_backbone(summary: DataSummary, seen_side: Callable[[Backbone], int | None]) -> Choice:
    """Returns the best of the networks that are installed or on the hub.

    `seen_side` gives the side in pixels at which a study with a network sees its images; None if no such study fits the time: then the network is
    left out before anything of it is downloaded. Raises Stopped.
    """
    from shared.weights.hub import hub_answers

    packaged = PACKAGED if is_installed() else None
    if not hub_answers():
        line = "backbone: networks of the Hugging Face hub were not compared, as it does not answer, or HF_HUB_OFFLINE is set"
        return Choice(packaged, (line,))
    lines, compared = list[str](), list[tuple[Backbone, Recalls]]()
    for backbone in HUB if packaged is None else (packaged, *HUB):
        side = seen_side(backbone)
        if side is None:
            lines.append(f"backbone: {backbone.model} was not compared, as no study with it fits the time")
            continue
        if backbone is not packaged:
            log.info(f"fetching {backbone.model} from the hub to compare it; HF_HUB_OFFLINE=1 prevents that")
        try:
            pinned, files = _fetched(backbone)
            compared.append((pinned, _recalls(pinned, files, summary, side)))
        except (ConfigError, DataError, UnavailableError) as error:
            lines.append(f"backbone: {backbone.model} was left out: {error}")
    order = _ordered(compared)
    if not order:
        return Choice(packaged, tuple(lines))
    return Choice(order[0][0], (_because(order), *lines))


def _fetched(backbone: Backbone) -> tuple[Backbone, dict[str, Path]]:
    """Returns a network with the commit and the licence of its weights, and their file; raises what fetching them raises."""
    from jobs.weights import timm_weights
    from shared.settings import Settings
    from shared.stop import StopSignal
    from shared.weights.pretrained import hub_licence

    if backbone.pretrained is not True:
        return backbone, {}
    found = timm_weights(backbone.model, None, Settings.from_environment(), StopSignal())
    (file,) = found.files.values()
    licence = hub_licence(backbone.model)
    about = f"{backbone.about}, {licence}" if licence else backbone.about
    return replace(backbone, revision=found.repository.commit, about=about), {backbone.model: file}


def _recalls(backbone: Backbone, fetched: dict[str, Path], summary: DataSummary, side: int) -> Recalls:
    """Returns what heads on the network's outputs find, each of images in a fold that it has not seen."""
    import numpy as np

    from shared.data.leaks import find_alike
    from shared.data.split import join_units
    from shared.look.backbone import frozen_features
    from shared.look.images import read_images, sample
    from shared.look.suspects import judge_labels

    train = np.flatnonzero(summary.preview.split == "train")
    chosen = train[sample(summary.preview.labels[train], IMAGES)]
    side = backbone.fitting(side)
    log.info(f"comparing {backbone.model}", images=len(chosen), side=side)
    images = [summary.images[i] for i in chosen]
    features = frozen_features(backbone, side, fetched)
    seen = read_images(images, summary.schema, summary.source.dataset, side, 1, features)
    alike = find_alike(seen.hashes, summary.source.dataset.leak_distance)
    units = join_units([image.group for image in seen.images], alike.clusters())
    return _by_class(judge_labels(seen.features, seen.labels, summary.schema, units))


def _by_class(judged: Sequence[Judged]) -> Recalls:
    found: Recalls = {}
    for group in judged:
        for each in sorted(group.ranking, key=lambda each: each.image):
            found.setdefault((group.group, each.given), []).append(each.confidence >= each.probability)
    return found


def _ordered(compared: Sequence[tuple[Backbone, Recalls]]) -> list[tuple[Backbone, Recalls]]:
    """Returns the networks, the best first: one with more work goes before another only if it is better by more than a standard error."""
    order: list[tuple[Backbone, Recalls]] = []
    for each in compared:
        place = 0
        while place < len(order) and not _is_better(each[1], order[place][1]):
            place += 1
        order.insert(place, each)
    return order


def _is_better(one: Recalls, other: Recalls) -> bool:
    """Returns whether the mean recall of the classes is larger by more than the standard error of the difference, paired by image."""
    import numpy as np

    pairs = [(np.array(one[name], float), np.array(other[name], float)) for name in one if name in other]
    # of two images or more, as one says nothing of the error
    pairs = [(a, b) for a, b in pairs if len(a) == len(b) > 1]
    if not pairs:
        return False
    difference = np.mean([np.mean(a - b) for a, b in pairs])
    error = np.sqrt(sum(np.var(a - b, ddof=1) / len(a) for a, b in pairs)) / len(pairs)
    return bool(difference > error)


def _mean_recall(recalls: Recalls) -> float | None:
    shares = [sum(right) / len(right) for right in recalls.values()]
    return sum(shares) / len(shares) if shares else None


def _because(order: Sequence[tuple[Backbone, Recalls]]) -> str:
    """Returns a line with the mean recall by each network."""
    from shared.look.suspects import FOLDS

    images = max(sum(map(len, recalls.values())) for _, recalls in order)
    found = [(backbone, _mean_recall(recalls)) for backbone, recalls in order]
    if images == 0:
        return f"backbone: {order[0][0].model}; no two classes have enough training images to compare networks"
    shares = [f"{backbone.model} ({backbone.about}) {100 * mean:.0f} %" for backbone, mean in found if mean is not None]
    return (
        f"backbone: a head on each frozen network was asked about {images} labels of training images that it had not seen ({FOLDS} folds); "
        f"mean recall of the classes: {', '.join(shares)}"
    )
