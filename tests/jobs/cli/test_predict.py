from __future__ import annotations

import csv
import io
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.cli.export_model import export_model
from jobs.cli.predict import Form, predict
from shared.deploy.choose import choose
from shared.errors import ConfigError, DataError
from shared.pipeline.local_session import last_study, local_session

ROOT = Path(__file__).parents[3]


def answers(*arguments: str, form: Form = "json", **options: Any) -> tuple[int, str]:
    """Returns exit code and output of the command."""
    given: dict[str, Any] = {
        "workdir": None,
        "experiment": None,
        "ensemble": False,
        "exported": None,
        "confidence": 0.0,
        **options,
    }
    prediction, lines = predict([Path(a) for a in arguments], form=form, **given)
    text = "\n".join(lines)
    return prediction.exit_code, text


def committed_probabilities(experiment: str, repeats: list[int]) -> dict[str, np.ndarray]:
    """Returns the mean of the calibrated probabilities that `final` committed, by the path of the test image."""
    folder = Path("work/squares")
    with local_session(*last_study(folder), folder, join=True, database=False) as local:
        chosen = choose(local.session, experiment)
        tables = [
            pq.read_table(chosen.repetitions[r].files("predictions.parquet")["predictions.parquet"]) for r in repeats
        ]
    each = [np.concatenate([np.array(t[f"c_{name}"].to_pylist()) for name in ("colour", "marks")], 1) for t in tables]
    return dict(zip(tables[0]["path"].to_pylist(), np.mean(each, axis=0), strict=True))


@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.usefixtures("trained")
def test_the_files_of_the_test_split_get_the_probabilities_that_final_committed(ensemble: bool) -> None:
    folder = Path("work/squares")
    with local_session(*last_study(folder), folder, join=True, database=False) as local:
        best = choose(local.session, "other").best.number
    expected = committed_probabilities("other", [0, 1] if ensemble else [best])
    code, text = answers(*(f"data/{name}" for name in expected), experiment="other", ensemble=ensemble)
    assert code == 0
    for entry in json.loads(text)["images"]:
        groups = entry["groups"]
        found = [*groups["colour"]["probabilities"].values(), *groups["marks"]["probabilities"].values()]
        assert found == pytest.approx(expected[Path(entry["image"]).name], abs=1e-5)


@pytest.mark.usefixtures("trained")
def test_the_answer_to_an_image_does_not_depend_on_the_others() -> None:
    _, alone = answers("data/7.png")
    _, among = answers("data")
    one = json.loads(alone)["images"][0]
    same = next(entry for entry in json.loads(among)["images"] if entry["image"] == "data/7.png")
    assert one["groups"]["colour"]["label"] == same["groups"]["colour"]["label"]
    for group in ("colour", "marks"):
        values = [list(entry["groups"][group]["probabilities"].values()) for entry in (one, same)]
        assert values[0] == pytest.approx(values[1], abs=1e-5)


@pytest.mark.usefixtures("trained")
def test_an_unreadable_image_is_said_and_the_rest_goes_on(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG")
    with caplog.at_level(logging.ERROR, "tailfill"):
        code, text = answers("data/1.png", str(bad), "data/gone.png", "data/2.png", form="csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert code == 2
    assert [bool(row["error"]) for row in rows] == [False, True, True, False]
    assert [row["colour"] for row in rows][::3] == ["green", "blue"]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert said[0].startswith(f"{bad}: not an image")
    assert said[1].startswith("data/gone.png: missing file")
    assert said[2] == "2 of 4 images could not be read; the others were labelled"


@pytest.mark.usefixtures("trained")
def test_a_lone_image_that_cannot_be_read_has_no_others(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    cut = tmp_path / "cut.png"  # its header is whole
    cut.write_bytes(Path("data/1.png").read_bytes()[:500])
    with caplog.at_level(logging.ERROR, "tailfill"):
        code, _ = answers(str(cut))
    assert code == 2
    assert [record.getMessage() for record in caplog.records][1:] == ["no image could be read"]


@pytest.mark.usefixtures("trained")
def test_what_was_chosen_to_read_an_odd_image_is_said(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("green", "red")]
    frames[0].save(tmp_path / "animated.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30)).save(tmp_path / "deep.png")
    with caplog.at_level(logging.INFO, "tailfill"):
        answers(str(tmp_path), "data/1.png")
    said = [record.getMessage() for record in caplog.records]
    assert "1 of 3 images: several frames: the first one was taken" in said
    assert any(line.startswith("1 of 3 images: grey of more than 8 bits: the percentiles") for line in said)


@pytest.mark.usefixtures("trained")
def test_a_csv_of_many_batches_keeps_its_order() -> None:
    names = [f"{i % 90}.png" for i in range(200)]
    Path("data/list.csv").write_text("file\n" + "\n".join(names) + "\n")
    try:
        code, text = answers("data/list.csv")
    finally:
        Path("data/list.csv").unlink()
    images = json.loads(text)["images"]
    assert code == 0
    assert [entry["image"] for entry in images] == names
    assert images[0]["groups"]["colour"]["label"] == images[90]["groups"]["colour"]["label"]


@pytest.mark.usefixtures("trained")
def test_a_chosen_confidence_withholds_answers_and_says_what_it_is_worth(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tailfill"):
        _, text = answers("data", form="table", confidence=0.999)
    assert "don't know" in text
    said = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("colour: ") and "test split" in line for line in said)
    assert any(line.startswith("the model is real: it is the baseline") for line in said)


@pytest.mark.usefixtures("trained")
def test_options_that_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--model: names an exported model"):
        answers("data", exported=tmp_path, ensemble=True)
    with pytest.raises(DataError, match=r"config\.json: not found"):
        answers("data", exported=tmp_path)
    (tmp_path / "config.json").write_text('{"tailfill": {"study": 3}}')
    with pytest.raises(DataError, match=r"config\.json: tailfill\.\w+: "):
        answers("data", exported=tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(DataError, match="holds no description of a model"):
        answers("data", exported=tmp_path)


@pytest.mark.usefixtures("trained")
def test_an_export_answers_the_same_without_torch(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    out = tmp_path / "model"
    export_model(out, "onnx", "other", None, None, None)
    _, wanted = answers("data", experiment="other")
    program = (
        "import sys\n"
        "from jobs.__main__ import main\n"
        "try:\n"
        "    main(['predict', 'data', '--json', '--model', sys.argv[1]])\n"
        "finally:\n"
        "    heavy = {'torch', 'timm', 'scipy', 'sklearn', 'optuna', 'boto3'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(out)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin", "HOME": str(tmp_path)},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    for a, b in zip(found["images"], json.loads(wanted)["images"], strict=True):
        assert a["image"] == b["image"]
        for group in ("colour", "marks"):
            values = [list(entry["groups"][group]["probabilities"].values()) for entry in (a, b)]
            assert values[0] == pytest.approx(values[1], abs=1e-4)
    config = json.loads((out / "config.json").read_text())
    config["tailfill"]["preprocessing"]["boxed"] = True
    (out / "config.json").write_text(json.dumps(config))
    answers("data/1.png", exported=out)
    assert "training images were cut to their bounding boxes; cut these images likewise" in caplog.messages
    damaged = out / "model.onnx"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"model\.onnx: is not the file that config\.json describes"):
        answers("data", exported=out)


@pytest.mark.usefixtures("trained")
def test_an_export_runs_on_the_device_that_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "model"
    export_model(out, "onnx", "other", None, None, None)

    def on(device: str, *available: str) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(onnxruntime, "get_available_providers", lambda: available)
            patch.setenv("TAILFILL_DEVICE", device)
            return answers("data/1.png", exported=out)[0]

    # ONNX Runtime warns if it is to use what this machine has not, and warnings are errors here
    assert on("cpu", "CUDAExecutionProvider", "CPUExecutionProvider") == 0
    with pytest.raises(ConfigError, match="TAILFILL_DEVICE: is cuda, and ONNX Runtime has no CUDA"):
        on("cuda", "CPUExecutionProvider")
