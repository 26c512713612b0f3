"""Provides a config of each stage, that of the demo, for tests to which the values do not matter."""

from __future__ import annotations

from shared.config.load import load_study
from shared.config.stages import Stage, StageConfig, WeightsConfig
from shared.pipeline.plan import plan
from tests.support.small_study import SMALL_STUDY

_CONFIGS: dict[Stage, StageConfig] = {step.stage: step.config for step in plan(load_study(SMALL_STUDY))}
_CONFIGS["weights"] = WeightsConfig(kind="timm", name="test_resnet", revision=None)


def any_config(stage: Stage) -> StageConfig:
    """Returns a config of the stage, the same at each call."""
    return _CONFIGS[stage]
