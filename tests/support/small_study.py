"""The small study of many tests: all stages, three arms, two repetitions, and no verdict."""

from __future__ import annotations

from pathlib import Path

SMALL_STUDY = Path(__file__).with_name("small-study.yaml")
