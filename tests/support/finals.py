"""Final trainings of a second each, on committed images: what a block holds."""

from __future__ import annotations

from pathlib import Path

from jobs.cli.stage import run_within
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.load import study_from_tree
from shared.config.resolve import ResolvedStudy
from shared.config.task import Task
from shared.pipeline.plan import Step, make_task, plan
from shared.settings import Settings
from shared.stop import StopSignal


def finals_study(epochs: int, count: int, processes: int | None = None) -> ResolvedStudy:
    """A study of one arm without a search."""
    return study_from_tree(
        {
            "name": "finals",
            "dataset": {"source": "garments", "resolution": 32, "train": 100, "val": 50, "test": 50, "rare_eval": 2},
            "finetune": {"generator": "pixel"},
            "rare": {"below": None},
            "classifier": {"model": "test_resnet", "pretrained": False, "trainable": "head", "head": [8]},
            "augmentation": "none",
            "training": {"batch_size": 30, "dropout": 0.2, "mixup": 0.3, "warmup_epochs": 0},
            "search": {"trials": 0},
            "final": {"epochs": epochs, "seeds": count, "checkpoint_every": 1},
            "resources": {"device": "cpu", "processes": processes},
            "verdict": "none",
            "experiments": [{"name": "real"}],
        }
    )


def prepared(
    folder: Path, epochs: int, count: int, processes: int | None = None
) -> tuple[ResolvedStudy, list[Step], list[Task]]:
    """Commits the images into the store in a folder; returns the study, the steps of the trainings, and their tasks."""
    study = finals_study(epochs, count, processes)
    steps = plan(study)
    settings = Settings.from_environment(
        {"TAILFILL_STORE": str(folder / "store"), "TAILFILL_CACHE": str(folder / "cache")}
    )
    made = run_within(make_task(study, steps[0], {}), artifacts_of(folder), settings, StopSignal())
    finals = [step for step in steps if step.stage == "final"]
    return study, finals, [make_task(study, step, {steps[0].id: made}) for step in finals]


def artifacts_of(folder: Path) -> Artifacts:
    """The artifacts in the store in a folder."""
    return Artifacts(FolderStore(folder / "store"), "finals", folder / "cache")
