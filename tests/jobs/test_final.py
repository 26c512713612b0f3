from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from jobs.final import FinalInputs, FinalResult, final
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.checkpoints import NoCheckpoints
from shared.artifacts.folder import FolderStore
from shared.data.dataset import read_info
from shared.data.imageset import read_shards
from shared.data.review import image_ids
from shared.errors import DataError, Stopped
from shared.metrics.calibration import fit_temperatures
from shared.metrics.classification import evaluate
from shared.metrics.table import METRICS
from shared.stop import StopSignal
from tests.support.final_driver import SCHEMA, config, dataset, runtime, small_final
from tests.support.trained_study import run_study

EPOCHS = 12


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> FinalResult:
    """Returns the result of an uninterrupted run."""
    return small_final(tmp_path_factory.mktemp("whole"), EPOCHS)


def read(finished: FinalResult, name: str) -> Any:
    return json.loads(finished.files[name].read_text())


def test_it_commits_what_the_report_reads(whole: FinalResult) -> None:
    assert set(whole.files) == {
        "metrics.json", "predictions.parquet", "validation.parquet", "curve.json", "model.safetensors", "thresholds.json", "calibration.json",
    }  # fmt: skip
    curve = read(whole, "curve.json")
    assert [row["epoch"] for row in curve] == list(range(EPOCHS + 1))
    table = pq.read_table(whole.files["predictions.parquet"])
    assert table.column_names == ["path", "p_colour", "c_colour", "y_colour", "p_marks", "c_marks", "y_marks"]
    assert table.num_rows == 40
    assert set(read(whole, "thresholds.json")) == {"marks/dark", "marks/noisy"}
    validation = pq.read_table(whole.files["validation.parquet"])
    assert validation.column_names == ["path", "l_colour", "y_colour", "l_marks", "y_marks"]
    assert validation.num_rows == 30
    assert whole.summary["images"] == {"train": 60, "added": 0, "test": 40}


def test_it_names_the_products_of_the_test_images_if_the_data_set_does(tmp_path: Path) -> None:
    images, info = dataset()
    products = [f"product {i // 2}" for i in range(len(images) - 1)]
    images = replace(images, extra=pa.table({"unit": pa.array([*products, None], pa.string())}))
    named = final(config(1), FinalInputs(images, info, {}), runtime(NoCheckpoints()), tmp_path)
    table = pq.read_table(named.files["predictions.parquet"])
    assert table.schema.field("unit").type == pa.string()
    assert table["unit"].to_pylist() == images.of("test").units()
    assert table["unit"].to_pylist()[-1] == images.paths[-1]


def test_its_metrics_are_those_of_its_predictions(whole: FinalResult) -> None:
    table = pq.read_table(whole.files["predictions.parquet"])
    p, y = (
        np.concatenate([np.array(table[f"{kind}_{name}"].to_pylist()) for name in ("colour", "marks")], 1)
        for kind in "py"
    )
    thresholds = read(whole, "thresholds.json")
    limits = np.array([thresholds.get(name, 0.5) for name in SCHEMA.class_names])
    sure = np.concatenate([np.array(table[f"c_{name}"].to_pylist()) for name in ("colour", "marks")], 1)
    expected = evaluate(
        SCHEMA, p.astype(np.float32), y.astype(np.int8), np.array([2]), limits, calibrated=sure.astype(np.float32)
    )
    metrics = read(whole, "metrics.json")
    assert metrics["calibrated_nll"] == pytest.approx(expected["calibrated_nll"])
    assert metrics["accuracy"] == pytest.approx(expected["accuracy"])
    assert metrics["macro_f1"] == pytest.approx(expected["macro_f1"])
    assert metrics["accuracy"] > metrics["majority_accuracy"]
    assert math.isfinite(metrics["loss"])
    assert [*metrics] == [*expected, "loss"]


def test_its_calibration_is_fitted_on_the_validation_split(whole: FinalResult) -> None:
    names = ("colour", "marks")
    table = pq.read_table(whole.files["validation.parquet"])
    logits, y = (np.concatenate([np.array(table[f"{kind}_{name}"].to_pylist()) for name in names], 1) for kind in "ly")
    calibration = read(whole, "calibration.json")
    assert calibration["temperatures"] == fit_temperatures(SCHEMA, logits.astype(np.float32), y.astype(np.int8))
    assert any(abs(value - 1) > 0.01 for value in calibration["temperatures"].values())
    test = pq.read_table(whole.files["predictions.parquet"])
    p, sure = (np.array(test[f"{kind}_marks"].to_pylist()) for kind in "pc")
    before, after = (
        np.array([*thresholds.values()]) for thresholds in (read(whole, "thresholds.json"), calibration["thresholds"])
    )
    assert np.array_equal(p >= before, sure >= after)  # calibration changes no decision


def test_every_metric_is_in_metrics_json_and_the_summary_has_its_share(whole: FinalResult) -> None:
    metrics = read(whole, "metrics.json")
    assert set(metrics) == {metric.name for metric in METRICS} | {"groups", "classes"}
    assert all(math.isfinite(metrics[metric.name]) for metric in METRICS)
    kept = {metric.name: metrics[metric.name] for metric in METRICS if metric.summary}
    assert whole.summary == kept | {key: whole.summary[key] for key in ("parameters", "images")}


def test_a_killed_run_goes_on_and_ends_the_same(whole: FinalResult, tmp_path: Path) -> None:
    latest = tmp_path / "checkpoints" / "latest.json"
    command = [sys.executable, "-m", "tests.support.final_driver", str(tmp_path), str(EPOCHS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch ") and latest.exists():
                process.kill()  # SIGKILL: no chance to save anything
    assert process.returncode == -9
    kept = json.loads((latest.parent / json.loads(latest.read_text())["folder"] / "progress.json").read_text())[
        "history"
    ]
    assert kept
    assert not (tmp_path / "out" / "metrics.json").exists()
    resumed = small_final(tmp_path, EPOCHS)
    first, second = (load_file(f.files["model.safetensors"]) for f in (whole, resumed))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert read(whole, "metrics.json") == read(resumed, "metrics.json")
    curves = [[{**row, "seconds": 0} for row in read(f, "curve.json")] for f in (whole, resumed)]
    assert curves[0] == curves[1]
    # it was resumed, not started again: the epochs of the killed process keep their times
    assert read(resumed, "curve.json")[: len(kept)] == kept


def test_a_signal_ends_it_before_the_test_split_is_read(tmp_path: Path) -> None:
    stop = StopSignal()
    stop.set()
    images, info = dataset()
    with pytest.raises(Stopped):
        final(config(1), FinalInputs(images, info), runtime(NoCheckpoints(), stop), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_test_images_there_is_nothing_to_judge(tmp_path: Path) -> None:
    images, info = dataset(test=0)
    with pytest.raises(DataError, match="test set has no images"):
        final(config(1), FinalInputs(images, info), runtime(NoCheckpoints()), tmp_path)


def test_a_person_s_review_is_applied_and_committed_and_generates_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = ("prepare", "finetune", "generate", "judge", "score", "final")
    settings: dict[str, Any] = {
        "verdict": "none", "experiments": [{"name": "synthetic", "images": "real+synthetic"}], "final": {"epochs": 1, "seeds": 1},
        "finetune": {"generator": "pixel", "steps": 2, "width": 8, "batch_size": 4}, "generate": {"quota": {"marks/framed": 5}, "steps": 1},
        "score": {"folds": 2, "epochs": 1},
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    plausible = {"plausibility": [0.0, 1.0], "copy_quantile": 0.0}
    first = run_study(tmp_path, stages, **settings, accept=plausible)
    artifacts = Artifacts(FolderStore(tmp_path / "store"), "squares", tmp_path / "cache")
    prepared, generated = first["prepare"], first["generate"]
    schema = read_info(artifacts.fetch(prepared.file("dataset.json"))).schema_
    shards = [artifacts.fetch(file) for file in generated.files if file.name.startswith("images-")]
    ids = image_ids(read_shards(shards, schema))
    Path("reviewed.csv").write_text(f"image,decision\n{ids[0]},reject\n{ids[3]},reject\n")
    again = run_study(tmp_path, stages, **settings, accept={**plausible, "reviewed": "reviewed.csv"})
    assert {name for name, manifest in again.items() if manifest != first[name]} == {"final synthetic 0"}
    final_, before = again["final synthetic 0"], first["final synthetic 0"]
    assert (before.summary["images"]["added"], final_.summary["images"]["added"]) == (5, 3)
    assert artifacts.fetch(final_.file("reviewed.csv")).read_text() == Path("reviewed.csv").read_text()
    assert final_.config["arm"]["accept"]["reviewed"] == f"sha256:{final_.file('reviewed.csv').digest}"
    assert "reviewed.csv" not in {file.name for file in before.files}
