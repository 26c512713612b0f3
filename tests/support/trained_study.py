"""Runs a small study to its final trainings in this process, and leaves the work directory with which commands find it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jobs.cli.stage import run_within
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.manifest import Manifest
from shared.config.load import study_from_tree, study_tree
from shared.context import Context
from shared.pipeline.local_session import STUDY_FILE, current_fingerprints, last_study
from shared.pipeline.plan import make_task, plan
from shared.settings import Settings
from shared.stop import StopSignal

COLOURS = ("red", "green", "blue")


def write_images(folder: Path, count: int = 90) -> None:
    """Writes images of coloured squares, some of them dark, some framed, and `labels.csv`."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["path,split,colour,dark,framed"]
    for i in range(count):
        colour, dark, framed = i % 3, int(rng.random() < 0.5), int(rng.random() < 0.4)
        pixels = np.full((40, 48, 3), 40.0)
        pixels[..., colour] = 200
        pixels = pixels * (0.5 if dark else 1.0) + rng.normal(0, 25, pixels.shape)
        if framed:
            pixels[:6] = pixels[-6:] = 250
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        split = ("train", "train", "val", "test", "train")[i // 3 % 5]
        lines.append(f"{i}.png,{split},{COLOURS[colour]},{dark},{framed}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def study_settings(data: Path, **more: Any) -> dict[str, Any]:
    """Returns the tree of a study with two arms on real images and two repetitions."""
    return {
        "name": "squares",
        "dataset": {
            "source": "csv", "root": str(data), "resolution": 32, "split_column": "split",
            "groups": {"colour": {"column": "colour"}, "marks": {"kind": "any", "columns": ["dark", "framed"]}},
        },
        "finetune": {"generator": "pixel"},
        "rare": {"below": None, "classes": ["marks/framed"]},
        "classifier": {"model": "test_resnet", "pretrained": False, "trainable": "all", "head": [8]},
        "augmentation": "none",
        "training": {"batch_size": 18, "warmup_epochs": 0, "lr": 0.01},
        "search": {"trials": 0},
        "final": {"epochs": 6, "seeds": 2},
        "resources": {"device": "cpu"},
        "verdict": {"baseline": "real", "provisional": True, "metric": "macro_f1"},
        "experiments": [{"name": "real"}, {"name": "other", "training": {"lr": 0.003}}],
        **more,
    }  # fmt: skip


def run_study(root: Path, stages: Sequence[str] = ("prepare", "final"), **more: Any) -> dict[str, Manifest]:
    """Runs these stages of a study on images in `root/data`, with its store in `root/store`; returns the manifests by label.

    Commands find it in `root/work/squares` if TAILFILL_STORE names the store.
    """
    if not (root / "data").exists():
        write_images(root / "data")
    study = study_from_tree(study_settings(root / "data", **more))
    work = root / "work" / study.name
    work.mkdir(parents=True, exist_ok=True)
    environment = {"TAILFILL_STORE": str(root / "store"), "TAILFILL_CACHE": str(root / "cache")}
    settings = Settings.from_environment(environment)
    fingerprints = current_fingerprints(study, work)
    (work / STUDY_FILE).write_text(json.dumps({"study": study_tree(study), **asdict(fingerprints)}))
    artifacts = Artifacts(FolderStore(root / "store"), study.name, root / "cache")
    committed, found = dict[str, Manifest](), dict[str, Manifest]()
    for step in plan(study, fingerprints.source, fingerprints.weights):
        if step.stage in stages:
            committed[step.id] = run_within(make_task(study, step, committed), artifacts, settings, StopSignal())
            found[step.label] = committed[step.id]
    return found


def commit_report(root: Path, outcomes: dict[str, str]) -> None:
    """Commits a report with these outcomes of the study in `root`, in place of the one that it has."""
    study, fingerprints = last_study(root / "work" / "squares")
    artifacts = Artifacts(FolderStore(root / "store"), study.name, root / "cache")
    steps = plan(study, fingerprints.source, fingerprints.weights)
    committed = dict[str, Manifest]()
    for step in steps[:-1]:
        task = make_task(study, step, committed)
        manifest = artifacts.find(task.stage, task.key)
        assert manifest is not None
        committed[step.id] = manifest
    task = make_task(study, steps[-1], committed)
    artifacts.forget("report", task.key)
    context = Context(task, artifacts, Settings.from_environment({}), root, StopSignal(), lambda: ("code", {}))
    context.commit({}, {"answer": f"It was found: {outcomes}.", "outcomes": outcomes})
