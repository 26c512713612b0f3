"""Provides a config of each stage, that of the demo, for tests to which the values do not matter."""

from __future__ import annotations

from pathlib import Path

from shared.config.load import load_study
from shared.config.stages import Stage, StageConfig, WeightsConfig
from shared.pipeline.plan import plan

DEMO = Path(__file__).parents[2] / "studies" / "demo.yaml"
_CONFIGS: dict[Stage, StageConfig] = {step.stage: step.config for step in plan(load_study(DEMO))}
_CONFIGS["weights"] = WeightsConfig(kind="timm", name="test_resnet", revision=None)


def any_config(stage: Stage) -> StageConfig:
    """Returns a config of the stage, the same at each call."""
    return _CONFIGS[stage]
