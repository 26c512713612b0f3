"""Makes the generated images of a trial, if the search varies how they are generated.

They are results of `generate` and `score` under the usual keys of these stages. So images for equal settings are generated once, by the
trial that first needs them, and are read by all other trials, other arms and the final trainings. The judges do not depend
on the images, and are an input of the search.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from shared.artifacts.keys import named_weights, new_task
from shared.artifacts.manifest import Manifest
from shared.config.stages import Arm, GenerateConfig, Stage, StageConfig, TuneConfig
from shared.config.task import Input
from shared.context import Context
from shared.stop import StopSignal
from shared.weights.roles import BASE, FEW_STEP, JUDGES


@dataclass(frozen=True)
class AddedImages:
    """Holds the generated images that an arm trains on, and their scores."""

    images: Manifest
    scores: Manifest | None
    """Holds None if the arm takes all images."""


def role_of_pool(role: str, pool: int, inputs: Collection[str]) -> str:
    """Returns the role under which a search has an input of a pool, which is its own if there is one: `prepare` or `prepare/<pool>`."""
    own = f"{role}/{pool}"
    return own if own in inputs else role


def make_images(config: TuneConfig, arm: Arm, pool: int, context: Context, stop: StopSignal) -> AddedImages:
    """Returns the pool of images of `arm.generate`, which it makes if they are not committed yet.

    `stop` is the trial's stop signal, which also ends the work when the trial is lost. Raises what the two stages raise.
    """
    wanted, known = config.images, context.task.inputs
    assert wanted is not None
    assert arm.generate is not None
    read = {role: known[role_of_pool(role, pool, known)] for role in ("prepare", "finetune")}
    drawing = GenerateConfig(
        generate=arm.generate,
        base=wanted.base,
        rare=arm.rare,
        seed=wanted.seed,
        pool=pool,
        weights=named_weights(arm.generate, config.weights),
    )
    images = _done(
        "generate",
        drawing,
        read | {role: known[role] for role in (BASE, FEW_STEP) if role in known},
        context,
        stop,
    )
    if wanted.score is None:
        return AddedImages(images, None)
    weights = named_weights(wanted.score, config.weights)
    scoring = wanted.score.model_copy(update={"weights": weights})
    made = Input(stage="generate", key=images.key, digest=images.digest)
    inputs = {role: known[role_of_pool(role, pool, known)] for role in ("prepare", "judge")} | {"generate": made}
    inputs |= {JUDGES: known[JUDGES]} if JUDGES in known else {}
    return AddedImages(images, _done("score", scoring, inputs, context, stop))


def _done(stage: Stage, config: StageConfig, inputs: dict[str, Input], context: Context, stop: StopSignal) -> Manifest:
    own = context.task
    task = new_task(own.study, stage, config, inputs, own.resources, own.experiment)
    return context.run_stage(task, stop)
