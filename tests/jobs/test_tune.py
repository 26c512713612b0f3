"""Tests a search over a real, tiny classifier, with real workers, a real coordinator and a real PostgreSQL."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import SecretStr
from sqlalchemy import text

import shared.classifier.fit
import shared.search.coordinator  # two threads that import it at once could see it half imported
import shared.search.visits
import shared.search.worker
from jobs import tune
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.artifacts.keys import new_task
from shared.artifacts.manifest import Manifest, Run
from shared.classifier.fit import EpochRecord, fit
from shared.config.dataset import Rare
from shared.config.paths import with_parameters
from shared.config.search import Budget, FloatRange, Resources, Search
from shared.config.seeds import repetition_seed
from shared.config.stages import Arm, Repetitions, TuneConfig
from shared.config.task import Input
from shared.config.training import Classifier, Training
from shared.context import Context
from shared.data.dataset import describe
from shared.data.imageset import ImageSet, write_shards
from shared.data.schema import LabelGroup, LabelSchema
from shared.errors import ConfigError, Stopped
from shared.search.search_state import read_search
from shared.search.spending import Spending
from shared.search.storage import Database
from shared.search.worker import TrialHandle
from shared.settings import Settings
from shared.stop import StopSignal

SCHEMA = LabelSchema(groups=(LabelGroup(name="tone", classes=("dark", "light")),))


def _images(count: int) -> ImageSet:
    rng = np.random.default_rng(0)
    labels = np.eye(2, dtype=np.int8)[np.arange(count) % 2]
    encoded = []
    for label in labels[:, 1]:
        pixels = rng.integers(0, 120, (16, 16, 3)) + 100 * int(label)
        out = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(out, "PNG")
        encoded.append(out.getvalue())
    split = np.array(["train", "train", "val", "val"] * (count // 4))
    return ImageSet(SCHEMA, encoded, [f"{i}.png" for i in range(count)], split, labels)


def _commit(
    artifacts: Artifacts,
    stage: Any,
    key: str,
    files: dict[str, Path],
    summary: dict[str, Any] | None = None,
    gpu_seconds: float = 0.0,
) -> Input:
    uploaded = tuple(artifacts.upload(name, path) for name, path in sorted(files.items()))
    run = Run(created="", seconds=1.0, device="cpu", device_seconds=gpu_seconds, code="", libraries={})
    manifest = artifacts.commit(
        Manifest(
            study=artifacts.study,
            stage=stage,
            key=key,
            version=1,
            config={},
            inputs={},
            files=uploaded,
            summary=summary or {},
            run=run,
        )
    )
    return Input(stage=stage, key=key, digest=manifest.digest)


def _commit_images(artifacts: Artifacts, folder: Path, key: str, count: int) -> Input:
    images = _images(count)
    folder.mkdir(exist_ok=True)
    info = folder / "dataset.json"
    info.write_text(describe("made", SCHEMA, 16, images.labels, images.split).model_dump_json(by_alias=True))
    shards = {path.name: path for path in write_shards(images, folder, "images")}
    return _commit(artifacts, "prepare", key, {"dataset.json": info, **shards})


@pytest.fixture
def artifacts(tmp_path: Path, folder_store: FolderStore) -> Artifacts:
    """Returns a store with a prepared data set and another experiment's search."""
    return Artifacts(folder_store, "tiny", tmp_path / "cache")


@pytest.fixture
def inputs(artifacts: Artifacts, tmp_path: Path) -> dict[str, Input]:
    return {
        "prepare": _commit_images(artifacts, tmp_path, "p", 64),
        "parameters": _commit(
            artifacts, "tune", "t", {}, {"parameters": {"training.dropout": 0.1, "training.beta1": 0.8}}
        ),
    }


def _config(**search: Any) -> TuneConfig:
    defaults: dict[str, Any] = {
        "trials": 3, "epochs": 3, "startup_trials": 2, "pruner": "none", "objective": "val_loss", "lease_seconds": 8.0,
        "space": {"training.lr": FloatRange(low=1e-4, high=1e-2, log=True)},
    }  # fmt: skip
    arm = Arm(
        rare=Rare(below=None),
        accept=None,
        classifier=Classifier(model="test_resnet", pretrained=False, trainable="all", head=(8,)),
        augmentation="none",
        images="real",
        training=Training(batch_size=16, warmup_epochs=0, beta1=0.85),
        synthetic=None,
    )
    return TuneConfig(arm=arm, pinned=("training.beta1",), search=Search(**{**defaults, **search}), seed=1)


def _context(
    config: TuneConfig, artifacts: Artifacts, inputs: dict[str, Input], url: str, scratch: Path, stop: StopSignal
) -> Context:
    scratch.mkdir(parents=True)
    settings = Settings.from_environment({})
    return Context(
        task=new_task("tiny", "tune", config, inputs, Resources()),
        artifacts=artifacts,
        settings=Settings(**{**settings.__dict__, "database_url": SecretStr(url)}),
        scratch=scratch,
        stop=stop,
        code=lambda: ("code", {}),
    )


def _work(*contexts: Context) -> None:
    """One worker for the searches of these contexts."""
    tune.work(lambda: contexts)


def _searched(config: TuneConfig, artifacts: Artifacts, inputs: dict[str, Input], url: str, folder: Path) -> Manifest:
    """Runs a whole search by a worker and its coordinator."""
    worker, coordinator = (
        _context(config, artifacts, inputs, url, folder / name, StopSignal()) for name in ("worker", "coordinator")
    )
    thread = threading.Thread(target=tune.work, args=(lambda: [worker],))
    thread.start()
    manifest = tune.run(config, coordinator)
    thread.join()
    return manifest


@pytest.mark.slow
def test_search_stopped_and_resumed(
    artifacts: Artifacts, inputs: dict[str, Input], database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, stop = _config(), StopSignal()
    committed: list[Manifest] = []
    coordinator = threading.Thread(
        target=lambda: committed.append(
            tune.run(config, _context(config, artifacts, inputs, database_url, tmp_path / "c", StopSignal()))
        )
    )
    coordinator.start()
    value, seen = tune.ArmObjective._values, []

    def interrupt(self: tune.ArmObjective, record: Any) -> list[float]:
        seen.append(record.epoch)
        if len(seen) == 2:
            stop.set()
        return value(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(tune.ArmObjective, "_values", interrupt)
        with pytest.raises(Stopped):
            _work(_context(config, artifacts, inputs, database_url, tmp_path / "w1", stop))
    key = _context(config, artifacts, inputs, "postgresql://h/d", tmp_path / "x", stop).task.key
    kept = artifacts.load_checkpoint("tune", key, "trial-0-1-2")  # the first claim's second
    assert kept is not None
    assert kept[1]["epoch"] == 2
    _work(_context(config, artifacts, inputs, database_url, tmp_path / "w2", StopSignal()))
    coordinator.join()
    (manifest,) = committed
    _check(manifest, config, artifacts)

    # the length of a lease is not part of the search's identity, so the search is found complete
    undisturbed = _config(lease_seconds=9.0)
    again = tune.run(undisturbed, _context(undisturbed, artifacts, inputs, database_url, tmp_path / "a", StopSignal()))
    assert again.summary == manifest.summary
    _check_curve_of_resumed_trial(config, artifacts, inputs, manifest, tmp_path, database_url)


@pytest.mark.slow
def test_one_worker_goes_from_search_to_search(
    artifacts: Artifacts, inputs: dict[str, Input], database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = [_config(trials=2, epochs=2), _config(trials=3, epochs=2).model_copy(update={"seed": 2})]
    built: list[int] = []
    build = tune.ArmObjective._build

    def counted(self: tune.ArmObjective, *arguments: Any) -> Any:
        built.append(self._config.seed)
        return build(self, *arguments)

    monkeypatch.setattr(tune.ArmObjective, "_build", counted)

    def context(config: TuneConfig, role: str) -> Context:
        return _context(config, artifacts, inputs, database_url, tmp_path / f"{role}{config.seed}", StopSignal())

    with ThreadPoolExecutor(2) as pool:
        ended = [pool.submit(tune.run, config, context(config, "c")) for config in configs]
        _work(*(context(config, "w") for config in configs))
        assert [done.result().summary["complete"] for done in ended] == [2, 3]
    assert sorted(built) == [1, 2]  # each arm's data once
    database = Database(database_url)
    try:
        with database.transaction() as connection:
            assert connection.scalar(text("SELECT count(*) FROM tailfill_workers")) == 0  # it has left both
    finally:
        database.close()


def _check(manifest: Manifest, config: TuneConfig, artifacts: Artifacts) -> None:
    assert manifest.summary["trials"] == manifest.summary["complete"] == 3
    assert (manifest.run.device, manifest.run.device_seconds, manifest.run.device_lost_seconds) == ("cpu", 0.0, 0.0)
    assert manifest.run.cpu_seconds is not None
    assert manifest.run.cpu_seconds > manifest.run.cpu_lost_seconds
    shares = json.loads(artifacts.fetch(manifest.file("importance.json")).read_bytes())
    assert shares == {"training.lr": pytest.approx(1)}
    best = json.loads(artifacts.fetch(manifest.file("best.json")).read_bytes())
    assert best["direction"] == "minimize"
    assert best["parameters"].keys() == {"training.dropout", "training.lr"}  # beta1 is the experiment's own
    assert best["parameters"]["training.dropout"] == 0.1
    rows = pq.read_table(artifacts.fetch(manifest.file("trials.parquet"))).to_pylist()
    assert [row["number"] for row in rows] == [0, 1, 2]
    assert rows[0]["training.lr"] == config.arm.training.lr
    assert rows[0]["claims"] == 2
    assert best["value"] == min(row["value"] for row in rows)
    assert all(row["value"] == pytest.approx(np.mean(row["curve"])) for row in rows)


def _check_curve_of_resumed_trial(
    config: TuneConfig, artifacts: Artifacts, inputs: dict[str, Input], manifest: Manifest, tmp_path: Path, url: str
) -> None:
    """Checks that the trial reported the values of an uninterrupted training."""
    from shared.artifacts.checkpoints import NoCheckpoints
    from shared.classifier.fit import fit

    rows = pq.read_table(artifacts.fetch(manifest.file("trials.parquet"))).to_pylist()
    objective = tune.ArmObjective(config, _context(config, artifacts, inputs, url, tmp_path / "u", StopSignal()))
    objective.prepare()
    assert objective._data is not None
    seed = repetition_seed(config.seed, 0)
    fitted = fit(objective._arm, objective._data, 3, seed, NoCheckpoints(), StopSignal())
    assert [record.val_loss for record in fitted.history] == rows[0]["curve"]


@pytest.mark.slow
def test_each_repetition_has_its_own_trials_seed_and_winner(
    artifacts: Artifacts, inputs: dict[str, Input], database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def watched(*arguments: Any) -> Any:
        seeds.append(arguments[3])
        return fit(*arguments)

    monkeypatch.setattr(shared.classifier.fit, "fit", watched)
    repetitions = Repetitions(count=2, seed=9, shared=("training.lr",))
    config = _config(trials=4, epochs=2, sampler="qmc").model_copy(update={"repetitions": repetitions})
    del inputs["parameters"]
    manifest = _searched(config, artifacts, inputs, database_url, tmp_path)
    assert seeds == [repetition_seed(config.seed, number) for number in (0, 0, 1, 1)]
    rows = pq.read_table(artifacts.fetch(manifest.file("trials.parquet"))).to_pylist()
    assert [row["repetition"] for row in rows] == [0, 0, 1, 1]
    best = json.loads(artifacts.fetch(manifest.file("best.json")).read_bytes())
    for number, winner in enumerate(best["repetitions"]):
        own = [row for row in rows if row["repetition"] == number]
        assert winner["value"] == min(row["value"] for row in own)
        assert winner["parameters"]["training.lr"] == rows[winner["number"]]["training.lr"]
    assert best["value"] == min(winner["value"] for winner in best["repetitions"])
    assert manifest.summary["repetitions"] == [winner["parameters"] for winner in best["repetitions"]]


@pytest.mark.slow
def test_each_repetition_trains_on_the_data_set_of_its_own_fold(
    artifacts: Artifacts, inputs: dict[str, Input], database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del inputs["parameters"]
    inputs = {"prepare/0": inputs["prepare"], "prepare/1": _commit_images(artifacts, tmp_path / "fold", "p1", 32)}
    sizes: list[int] = []
    build = tune.ArmObjective._build

    def built(self: tune.ArmObjective, arm: Arm, added: Any, prepared: Manifest) -> Any:
        found = build(self, arm, added, prepared)
        assert self._sets is not None
        sizes.append(len(self._sets[0]))
        return found

    monkeypatch.setattr(tune.ArmObjective, "_build", built)
    repetitions = Repetitions(count=2, seed=9, shared=("training.lr",))
    config = _config(trials=4, epochs=1, sampler="qmc").model_copy(update={"repetitions": repetitions})
    manifest = _searched(config, artifacts, inputs, database_url, tmp_path)
    assert sizes == [32, 16]  # half of the images of each data set, which is built once
    assert manifest.inputs.keys() == {"prepare/0", "prepare/1"}
    assert manifest.summary["complete"] == 4


def _spent(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replaces the hours that the study has spent by the only item of the returned list."""
    hours = [0.0]
    monkeypatch.setattr(Spending, "gpu_seconds", lambda _: hours[0] * 3600)
    return hours


def _after(monkeypatch: pytest.MonkeyPatch, number: int, epoch: int, act: Callable[[], object]) -> None:
    """Calls a function in the worker when that epoch of that trial is reported."""
    report = TrialHandle.report

    def reported(self: TrialHandle, at: int, value: Any) -> None:
        report(self, at, value)
        if (self.number, at) == (number, epoch):
            act()

    monkeypatch.setattr(TrialHandle, "report", reported)


@pytest.mark.slow
def test_budget_spent_while_a_trial_runs_lets_it_end(
    artifacts: Artifacts, inputs: dict[str, Input], database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, spent, database = _config(budget=Budget(gpu_hours=1)), _spent(monkeypatch), Database(database_url)
    name = tune.search_name(config, _context(config, artifacts, inputs, "", tmp_path / "n", StopSignal()))

    def spend() -> None:
        spent[0] = 2.0
        while (row := read_search(database, name)) is not None and row.closed is None:
            time.sleep(0.05)

    _after(monkeypatch, 1, 0, spend)
    manifest = _searched(config, artifacts, inputs, database_url, tmp_path)
    database.close()
    assert manifest.summary["ended"] == "search.budget.gpu_hours of 1.0 are spent"
    rows = pq.read_table(artifacts.fetch(manifest.file("trials.parquet"))).to_pylist()
    assert [(row["number"], row["state"], len(row["curve"])) for row in rows] == [(n, "complete", 3) for n in (0, 1)]
    best = json.loads(artifacts.fetch(manifest.file("best.json")).read_bytes())
    assert best["value"] == min(row["value"] for row in rows)


@pytest.mark.slow
def test_trial_that_a_spent_budget_left_goes_on_from_its_checkpoint_under_a_larger_one(
    artifacts: Artifacts, inputs: dict[str, Input], database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, spent, stop = _config(budget=Budget(gpu_hours=1)), _spent(monkeypatch), StopSignal()
    context = _context(config, artifacts, inputs, database_url, tmp_path / "c", StopSignal())
    with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patch:
        committed = pool.submit(tune.run, config, context)
        _after(patch, 1, 1, stop.set)
        with pytest.raises(Stopped):
            _work(_context(config, artifacts, inputs, database_url, tmp_path / "w", stop))
        artifacts.store.put(f"tiny/tune/{context.task.key}/checkpoints/trial-0-1-1.json", b"of a killed worker")
        spent[0] = 2.0
        manifest = committed.result()
    assert (manifest.summary["ended"], manifest.summary["trials"]) == ("search.budget.gpu_hours of 1.0 are spent", 1)
    folder = f"tiny/tune/{manifest.key}/checkpoints/"
    assert {location.removeprefix(folder)[:10] for location in artifacts.store.list(folder)} == {"trial-1-1-"}

    epochs: list[list[int]] = []

    def watched(*arguments: Any) -> Any:
        *before, on_epoch, every = arguments
        epochs.append([])

        def note(record: EpochRecord) -> None:
            epochs[-1].append(record.epoch)
            on_epoch(record)

        return fit(*before, note, every)

    monkeypatch.setattr(shared.classifier.fit, "fit", watched)
    raised = _searched(_config(budget=Budget(gpu_hours=3)), artifacts, inputs, database_url, tmp_path / "raised")
    assert (raised.summary["ended"], raised.summary["trials"]) == ("complete", 3)
    assert epochs == [[2], [0, 1, 2]]
    assert not [location for location in artifacts.store.list("tiny/tune/") if "/checkpoints/" in location]


@pytest.mark.slow
def test_too_many_failures_end_the_search_with_the_best_so_far(
    artifacts: Artifacts, inputs: dict[str, Input], database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = tune.ArmObjective.__call__

    def failing(self: tune.ArmObjective, trial: TrialHandle) -> list[float]:
        if trial.number >= 2:
            raise ValueError("no luck")
        return objective(self, trial)

    monkeypatch.setattr(tune.ArmObjective, "__call__", failing)
    manifest = _searched(_config(epochs=1, max_failures=1), artifacts, inputs, database_url, tmp_path)
    summary = manifest.summary
    assert summary["ended"] == "2 trials failed, search.max_failures is 1"
    assert (summary["trials"], summary["complete"], summary["failed"]) == (2, 2, 2)
    rows = pq.read_table(artifacts.fetch(manifest.file("trials.parquet"))).to_pylist()
    assert [row["failure"] for row in rows] == [None, None, "ValueError: no luck", "ValueError: no luck"]
    best = json.loads(artifacts.fetch(manifest.file("best.json")).read_bytes())
    assert (best["value"], best["number"]) == min((row["value"], row["number"]) for row in rows[:2])
    assert best["parameters"]["training.lr"] == rows[best["number"]]["training.lr"]


@pytest.mark.slow
def test_several_objectives_are_committed_with_their_front(
    artifacts: Artifacts, inputs: dict[str, Input], database_url: str, tmp_path: Path
) -> None:
    names = ["val_loss", "val_accuracy"]
    config = _config(objective=tuple(names), epochs=2)
    manifest = _searched(config, artifacts, inputs, database_url, tmp_path)
    rows = pq.read_table(artifacts.fetch(manifest.file("trials.parquet"))).to_pylist()
    assert len(rows) == 3
    for name in names:
        assert all(row[f"value.{name}"] == pytest.approx(np.mean(row[f"curve.{name}"])) for row in rows)
    best = json.loads(artifacts.fetch(manifest.file("best.json")).read_bytes())
    assert (best["objective"], best["direction"]) == (names, "minimize")
    assert best["directions"] == {"val_loss": "minimize", "val_accuracy": "maximize"}
    assert {row["number"] for row in best["front"]} == {row["number"] for row in rows if row["front"]}
    taken = best["front"][0]
    assert (taken["number"], taken["parameters"]) == (best["number"], best["parameters"])
    assert best["value"] == taken["values"]["val_loss"] == min(row["value.val_loss"] for row in rows)
    assert best["parameters"]["training.dropout"] == 0.1  # the value of the other experiment
    assert not list(artifacts.store.list(f"tiny/tune/{manifest.key}/checkpoints/"))


@pytest.mark.slow
def test_a_warm_start_tries_the_best_of_another_study_first(
    artifacts: Artifacts, inputs: dict[str, Input], database_url: str, tmp_path: Path
) -> None:
    trials, best = tmp_path / "trials.parquet", tmp_path / "earlier-best.json"
    rows = [
        {"number": n, "state": "complete", "value": value, "training.lr": lr, "training.tau": 2.0}
        for n, (value, lr) in enumerate([(0.5, 0.002), (0.9, 0.001), (0.7, 0.5), (0.8, 0.004)])
    ]
    pq.write_table(pa.Table.from_pylist(rows), trials)
    best.write_text(json.dumps({"direction": "maximize"}))
    theirs = Artifacts(artifacts.store, "theirs", artifacts.cache)
    source = _commit(theirs, "tune", "w", {"trials.parquet": trials, "best.json": best}, gpu_seconds=1e9)
    inputs = {**inputs, "warm_start": source.model_copy(update={"study": "theirs"})}
    # the spending of another study does not count against this one's budget
    config = _config(trials=3, epochs=1, first_defaults=False, budget=Budget(gpu_hours=1))
    manifest = _searched(config, artifacts, inputs, database_url, tmp_path)
    assert manifest.summary["ended"] == "complete"
    tried = pq.read_table(artifacts.fetch(manifest.file("trials.parquet")))["training.lr"].to_pylist()
    assert tried == [0.001, 0.004, 0.002]  # 0.5 lies outside


def test_study_goes_on_under_another_budget_only(
    artifacts: Artifacts, inputs: dict[str, Input], tmp_path: Path
) -> None:
    def name(config: TuneConfig, folder: str) -> str:
        return tune.search_name(
            config, _context(config, artifacts, inputs, "postgresql://h/d", tmp_path / folder, StopSignal())
        )

    first = name(_config(), "1")
    assert name(_config(trials=9, workers=7, max_failures=1), "2") == first
    assert name(_config(epochs=9), "3") != first
    assert name(_config().model_copy(update={"seed": 2}), "4") != first


def test_study_goes_by_the_content_of_weights(artifacts: Artifacts, inputs: dict[str, Input], tmp_path: Path) -> None:
    def name(file: str, digest: str) -> str:
        config = with_parameters(_config(), {"arm.classifier.pretrained": file}).model_copy(
            update={"weights": {file: digest}}
        )
        context = _context(config, artifacts, inputs, "postgresql://h/d", tmp_path / f"{file}{digest}", StopSignal())
        return tune.search_name(config, context)

    assert name("a.safetensors", "1") == name("b.safetensors", "1") != name("a.safetensors", "2")


def test_without_a_database_it_says_so(artifacts: Artifacts, inputs: dict[str, Input], tmp_path: Path) -> None:
    context = _context(_config(), artifacts, inputs, "", tmp_path / "d", StopSignal())
    context.settings = Settings.from_environment({})
    for role in (lambda: tune.run(_config(), context), lambda: _work(context)):
        with pytest.raises(ConfigError, match="DATABASE_URL: is not set"):
            role()
