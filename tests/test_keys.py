"""Tests that no key changes by accident: the ids and keys of all steps of many studies are those in tests/pinned.

A user's unfinished study can be continued only if its keys stay the same. `python -m tests.test_keys --write` rewrites the pins. A pin may
change only together with the version of its stage, in a commit that says so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from shared.artifacts.keys import keyed
from shared.artifacts.manifest import File, Manifest, Run
from shared.config.load import load_study
from shared.config.resolve import ResolvedStudy
from shared.config.search import Choice, Range
from shared.config.stages import STAGES, TuneConfig
from shared.config.task import Input, Task
from shared.pipeline.local_session import current_fingerprints, last_study, local_session
from shared.pipeline.plan import Step, make_task, plan
from shared.pipeline.status import states
from shared.pipeline.warm_start import WarmStart
from shared.search.identity import search_name, settings_digest
from shared.weights.digests import weight_locations
from tests.support.pinned import DEMO, PINNED, demo_manifests
from tests.support.small_study import SMALL_STUDY

ROOT = Path(__file__).parents[1]

VERDICT = "verdict={provisional: true}"
SPACE = "{generate.guidance: {values: [1.0, 2.0]}, generate.fill_to: {values: [100, 150]}, training.lr: {low: 0.001, high: 0.01}}"
GENERATION = ["verdict=none", f"experiments.synthetic.search={{space: {SPACE}}}"]
TAKEN_OVER = [*GENERATION, "experiments.placebo.parameters_from=synthetic", "experiments.placebo.search.trials=0"]
HUB = ["finetune={generator: stable-diffusion, base: some/model, resolution: 32}", "classifier.pretrained=true"]
BUCKET = ["finetune={generator: stable-diffusion, base: 's3://bucket/base', resolution: 32}"]
FILES = "{classifier.pretrained: {values: [false, 's3://bucket/a.safetensors', 's3://bucket/b.safetensors']}}"
MODELS = "{classifier.pretrained: {values: [true, false]}, classifier.model: {values: [test_resnet, test_vit]}}"
TABLE = (
    "dataset={source: csv, root: data, file: a.csv, path_column: file, split_column: split, group_by: patient, on_bad: skip, "
    "groups: {kind: {column: kind}, marks: {kind: any, columns: [a, b]}}}"
)
SMALL: dict[str, list[str]] = {
    "overrides": [
        "experiments.synthetic.generate={fill_to: 200}", "experiments.synthetic.accept={copies: allow}",
        "experiments.placebo.score={folds: 3}", "experiments.placebo.training={mixup: 0.2, views: 4}",
        "experiments.real.classifier={head: [64, 32]}", "experiments.synthetic.rare={below: 60, classes: [fabric/leather]}",
        "experiments.synthetic.finetune={steps: 700}", "experiments.placebo.augmentation=hard", "seed=7", "final.seeds=3",
        "search.trials=6", "verdict={provisional: true, metric: accuracy, compares: recipes}",
        "experiments.placebo.synthetic={groups: checked}", "generate.quota={fabric/leather: 12}",
    ],
    "verdict": [VERDICT],
    "one-generator": [VERDICT, "verdict.generators=one"],
    "own-seed": ["verdict=none", "experiments.placebo.seed=2"],
    "other-generator": ["experiments.placebo.finetune={generator: stable-diffusion, base: some/model, method: lora, images: rare}"],
    "search-over-generation": GENERATION,
    "parameters-of-another-search": TAKEN_OVER,
    "parameters-pinned": [*TAKEN_OVER, "experiments.placebo.generate.guidance=3", "experiments.placebo.training.lr=0.002"],
    "warm-start-from-above": ["verdict=none", "experiments.placebo.search.warm_start_from=synthetic"],
    "warm-start-from-another-study": ["verdict=none", *(f"experiments.{arm}.search.warm_start_from=other/real" for arm in ("real", "synthetic", "placebo"))],
    "sequential": ["verdict=none", "search.strategy=sequential", "search.sampler=cmaes", "search.pruner=none"],
    "several-objectives": ["search.objective=[val_macro_f1, val_loss]", "search.pruner=none", "search.budget={gpu_hours: 3}"],
    "searched-augmentation": ["search.space={augmentation: {values: [none, soft, hard]}, training.erasing: {low: 0.0, high: 0.5}}"],
    "grid": ["verdict=none", "search.strategy=grid", "search.trials=4", "search.first_defaults=false", "search.epochs=5", "search.pruner=none"],
    "no-search": ["search.trials=0", "verdict=none"],
    "real-only": ["verdict=none", "experiments=[{name: real, images: real}]"],
    "hub-weights": HUB,
    "hub-weights-pinned": [*HUB, f"classifier.revision={'a' * 40}", f"finetune.revision={'b' * 40}", "score.model=test_vit"],
    "hub-weights-searched": ["verdict=none", f"experiments.real.search={{space: {MODELS}}}"],
    "hub-weights-of-trials": [*HUB, *GENERATION, "score.model=test_vit"],
    "weights-in-a-bucket": [*BUCKET, "classifier.pretrained=s3://bucket/a.safetensors"],
    "weights-in-a-bucket-searched": [*BUCKET, "verdict=none", f"search.space={FILES}", *GENERATION],
    "folder": ["dataset={source: folder, root: data, group: species, split: {val: 0.2, test: 0.2}, fit: pad}"],
    "table": [TABLE],
    "deepfashion-cropped": ["dataset={source: deepfashion, root: 's3://bucket/df', crop: true, resolution: 64}"],
    "resources": ["resources={device: cpu, processes: 1, cache_gib: 1}"],
    "prices": ["prices={currency: EUR, per_hour: {H100: 2.5}}"],
}  # fmt: skip
"""The `--set` values by which studies differ from the demo."""


REMEDY = (
    "if you raised a stage's version on purpose, run `python -m tests.test_keys --write` and look at what it changes, else "
    "undo what changed them: a new field needs exclude_if"
)


def digest(text: str) -> str:
    """The fingerprint of anything that this test does not have."""
    return sha256(text.encode()).hexdigest()


def cases() -> dict[str, tuple[Path, list[str]]]:
    """Returns the study file and the `--set` values of each case."""
    shipped: dict[str, tuple[Path, list[str]]] = {
        path.stem: (path, []) for path in sorted((ROOT / "studies").glob("*.yaml"))
    }
    return shipped | {name: (SMALL_STUDY, sets) for name, sets in SMALL.items()}


def planned(file: Path, sets: list[str]) -> tuple[ResolvedStudy, list[Step]]:
    """Returns the study and its plan, with invented fingerprints of data, weights and the other study's search."""
    study = load_study(file, sets)
    files, folders = weight_locations(study)
    folders |= {"s3://bucket/base"} if any("s3://bucket/base" in setting for setting in sets) else set()
    source = None if study.dataset.source == "garments" else digest("data")
    earlier = {
        "other/real": WarmStart("other/real", Input(stage="tune", key=digest("k"), digest=digest("d"), study="other"))
    }
    return study, plan(study, source, {location: digest(location) for location in {*files, *folders}}, earlier)


def made_up(task: Task) -> Manifest:
    """Returns a manifest that the task could have committed."""
    summary: dict[str, Any] = {}
    if task.stage == "tune":
        best = {path: _value(values) for path, values in _search(task).search.space.items()}
        repetitions = _search(task).repetitions
        summary |= {"parameters": best, "repetitions": [best] * (repetitions.count if repetitions else 0)}
    return Manifest(
        study=task.study,
        stage=task.stage,
        key=task.key,
        version=STAGES[task.stage].version,
        config=keyed(task.stage, task.config),
        inputs=task.inputs,
        files=(File(name="file", digest=digest(task.key), size=1),),
        summary=summary,
        run=Run(created="2026-11-28T00:00:00+00:00", seconds=1.0, device="cpu", device_seconds=0.0, code="", libraries={}),
    )  # fmt: skip


def _search(task: Task) -> TuneConfig:
    assert isinstance(task.config, TuneConfig)
    return task.config


def _value(values: Range) -> Any:
    return values.values[-1] if isinstance(values, Choice) else values.low


def described(study: ResolvedStudy, steps: list[Step]) -> list[dict[str, Any]]:
    """Returns id, key and config of each step; the key of a search is also part of its name in PostgreSQL."""
    committed: dict[str, Manifest] = {}
    rows = []
    for step in steps:
        task = make_task(study, step, committed)
        committed[step.id] = made_up(task)
        config = task.config
        fields = digest(json.dumps(_fields(config.model_dump(mode="json", by_alias=True))))
        row = {"step": step.label, "id": step.id, "key": task.key, "fields": fields}
        if isinstance(config, TuneConfig):
            row["search"] = search_name(study.name, config, task.inputs, 0)
            row["settings"] = settings_digest(config.search)
        rows.append(row)
    return rows


def _fields(config: Any, path: str = "") -> list[str]:
    """Returns the paths of a dumped config's fields, including those that are in no key."""
    if not isinstance(config, Mapping):
        return [path]
    return sorted(field for name, value in config.items() for field in _fields(value, f"{path}.{name}"))


@pytest.mark.parametrize("name", cases())
def test_ids_and_keys_are_the_pinned_ones(name: str) -> None:
    found = described(*planned(*cases()[name]))
    pinned = json.loads((PINNED / "keys.json").read_text())[name]
    assert [row["step"] for row in found] == [row["step"] for row in pinned]
    changed = [row["step"] for row, old in zip(found, pinned, strict=True) if row != old]
    assert not changed, f"{name}: the ids, keys or fields of these steps differ from tests/pinned/keys.json; {REMEDY}"


def test_committed_manifests_keep_their_digests_and_give_the_keys_that_they_gave(tmp_path: Path) -> None:
    study, manifests = load_study(ROOT / "studies" / "demo.yaml"), demo_manifests()
    fingerprints = current_fingerprints(study, tmp_path)
    digests = json.loads((PINNED / "demo.json").read_text())
    assert {label: manifest.digest for label, manifest in manifests.items()} == digests
    committed: dict[str, Manifest] = {}
    for step in plan(study, fingerprints.source, fingerprints.weights):
        assert make_task(study, step, committed).key == manifests[step.label].key, step.label
        committed[step.id] = manifests[step.label]
    assert len(committed) == len(manifests) == 37


def keep_demo(work: Path) -> None:
    """Copies the manifests of a finished demo, whose work directory is `work`, into the pins."""
    with local_session(*last_study(work), work, join=True) as local:
        session = local.session
        rows = states(session.study, session.steps, session.artifacts)
    manifests = {row.step.label: row.manifest for row in rows}
    missing = [label for label, manifest in manifests.items() if manifest is None]
    assert not missing, f"{', '.join(missing)} not committed in {work}; run `make demo` to its end first"
    trees = {label: manifest.model_dump(mode="json") for label, manifest in manifests.items() if manifest is not None}
    DEMO.write_text(json.dumps(trees, indent=0) + "\n")


if __name__ == "__main__":
    usage = "usage: python -m tests.test_keys --write [WORK], WORK of a finished demo, whose manifests are pinned too"
    assert sys.argv[1:2] == ["--write"], usage
    assert len(sys.argv) <= 3, usage
    if sys.argv[2:]:
        keep_demo(Path(sys.argv[2]))
    pins = {name: described(*planned(file, sets)) for name, (file, sets) in cases().items()}
    (PINNED / "keys.json").write_text(json.dumps(pins, indent=0) + "\n")
    found = {label: manifest.digest for label, manifest in sorted(demo_manifests().items())}
    (PINNED / "demo.json").write_text(json.dumps(found, indent=1) + "\n")
