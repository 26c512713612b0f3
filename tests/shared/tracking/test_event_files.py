"""Tests what TensorBoard's own reader finds in the event files of a study."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from shared.errors import ConfigError
from shared.settings import Settings
from shared.tracking.event_files import EventFiles, image_size
from shared.tracking.records import RunRecord, plain_name
from tests.support.local_commands import run
from tests.support.tracked_study import EPOCHS, TRIALS, picture


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    found.Reload()
    return found


def runs(folder: Path) -> dict[str, Path]:
    return {str(path.parent.relative_to(folder)): path.parent for path in sorted(folder.rglob("events.out.tfevents.*"))}


def test_a_study_in_event_files(committed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILFILL_TENSORBOARD", "board")
    run()
    found = runs(committed / "board" / "demo")
    finals = [name for name in found if "/final-" in name]
    assert len(finals) == 6
    assert len([name for name in found if "/trial-" in name]) == 3 * TRIALS
    final = read(found[finals[0]])
    assert [event.step for event in final.Scalars("val_loss")] == list(range(EPOCHS))
    assert final.Scalars("val_macro_f1")[-1].value == pytest.approx(0.1 * (EPOCHS - 1))
    assert final.Scalars("accuracy")[0].value == 0.75
    assert "macro_f1" not in final.Tags()["scalars"]  # it is not defined
    assert final.Scalars("classes/fabric/knit__a_b/f1")[0].value == 0.5
    trial = read(next(path for name, path in found.items() if name.endswith("trial-0001")))
    assert trial.Scalars("objective/val_macro_f1")[0].value == pytest.approx(0.6)
    assert len(trial.Scalars("val_macro_f1")) == EPOCHS
    assert "_hparams_/session_start_info" in trial.summary_metadata
    generated = read(next(path for name, path in found.items() if "/generate-" in name))
    sizes = {(image.width, image.height) for tag in generated.Tags()["images"] for image in generated.Images(tag)}
    assert len(sizes) == 16
    assert all(width == height + 2 for width, height in sizes)
    assert read(next(path for name, path in found.items() if "/finetune-" in name)).Tags()["images"] == ["samples.png"]

    before = {path: path.stat().st_mtime_ns for path in (committed / "board").rglob("*")}
    run()
    assert {path: path.stat().st_mtime_ns for path in (committed / "board").rglob("*")} == before


def test_a_removed_mark_writes_the_same_files_again(tmp_path: Path) -> None:
    files = EventFiles(Settings.from_environment({"TAILFILL_TENSORBOARD": str(tmp_path)}), "s")
    record = RunRecord("a", "b" * 64, "final real 0", "real", metrics={"x": 1.0}, began=5.0, ended=6.0)
    assert not files.logged("a", "b" * 64)
    for _ in range(2):  # as after a kill between the file and its mark
        files.log(record)
    assert files.logged("a", "b" * 64)
    (folder,) = runs(tmp_path).values()
    assert len(read(folder).Scalars("x")) == 1


@pytest.mark.parametrize("name", ["..", "../../x", "/etc/x", "a/../../b", "a\n", "\x1b[31m", "x" * 400, "ü/:*"])
def test_hostile_names_stay_below_the_folder(tmp_path: Path, name: str) -> None:
    files = EventFiles(Settings.from_environment({"TAILFILL_TENSORBOARD": str(tmp_path / "in")}), "s")
    record = RunRecord(name, "d", name, name, metrics={name: 1.0}, images={name: picture()}, parameters={name: name})
    files.log(record)
    assert files.logged(name, "d")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert len(runs(tmp_path / "in" / "s")) == 1
    assert ".." not in plain_name(name).split("/")


def test_sizes_of_images() -> None:
    assert image_size(picture(8)) == (10, 8)
    assert image_size(picture(300, "JPEG")) == (302, 300)
    for hostile in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd8\xff\xe0\x00\x00" + b"\0" * 20, b"GIF89a"):
        assert image_size(hostile) is None


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for value, words in ((str(tmp_path / "file"), "cannot be written"), ("s3://bucket/x", "must be a folder")):
        with pytest.raises(ConfigError, match=f"TAILFILL_TENSORBOARD: .*{words}"):
            EventFiles(Settings.from_environment({"TAILFILL_TENSORBOARD": value}), "s")
