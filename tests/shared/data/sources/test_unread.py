from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shared.data.infer_source import infer_source
from shared.errors import DataError

Picture = Callable[[Path], Path]
CVAT = '<?xml version="1.0"?><annotations><version>1.1</version><image id="0" name="0.png"><tag label="cat"/></image></annotations>'


@pytest.mark.parametrize(
    ("name", "messages"),
    [
        ("birds.zip", ["is an archive", "unzip {data} -d {stem}`", "`tailfill init {stem}`"]),
        ("birds.tar.gz", ["is an archive", "mkdir -p {stem} && tar -xf {data} -C {stem}`", "`tailfill init {stem}`"]),
        ("birds.TGZ", ["tar -xf {data}"]),
        ("birds.7z", ["7z x {data} -o{stem}"]),
        ("birds.mat", ["holds MATLAB data, which is not read", "numpy.savez"]),
        ("birds.h5", ["HDF5"]),
        ("birds.npy", ["NumPy arrays without names"]),
        ("birds.tfrecord-00000-of-00010", ["TFRecord"]),
        ("birds.pkl", ["pickled objects"]),
        ("birds.xlsx", ["an Excel file", "CSV UTF-8"]),
    ],
)
def test_a_file_that_is_not_read_is_named_with_a_remedy(tmp_path: Path, name: str, messages: list[str]) -> None:
    data = tmp_path / name
    data.write_bytes(b"\x93\0\xff")
    with pytest.raises(DataError) as caught:
        infer_source(data)
    wanted = [message.format(data=data, stem=tmp_path / "birds") for message in messages]
    assert [message for message in wanted if message not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train.zip", "sampleSubmission.csv"], "holds no images but an archive (train.zip)"),
        (["train/a.tfrecord-00000-of-00002", "labels.csv"], "holds no images but TFRecord (train/a.tfrecord-00000-of-00002)"),
        (["x.zip", "scan.dcm"], "holds no images but DICOM (scan.dcm)"),
        (["data_batch_1.bin"], "holds no images but binary data"),
        (["data.mdb", "lock.mdb"], "holds no images but LMDB"),
    ],
)  # fmt: skip
def test_a_folder_without_images_says_what_it_holds(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("id,label\n1,0.5\n")
    with pytest.raises(DataError) as caught:
        infer_source(tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("imagelabels.mat", "MATLAB", "imagelabels.mat is MATLAB data, which is not; write a CSV with a row per image"),
        ("labels.xlsx", "PK", "labels.xlsx is an Excel file, which is not; save it as CSV"),
        ("annotations.xml", CVAT, "annotations.xml is CVAT's XML, which is not; export them from CVAT as COCO"),
        ("photos/0.json", '{"version": "5", "shapes": [{"label": "cat"}]}', "photos/0.json is LabelMe's JSON"),
        ("export.json", '[{"annotations": [{"result": [{"from_name": "x"}]}]}]', "export.json is Label Studio's JSON"),
    ],
)
def test_labels_that_are_not_read_are_named(
    tmp_path: Path, picture: Picture, name: str, content: str, message: str
) -> None:
    for number in range(6):
        picture(tmp_path / "photos" / f"{number}.png")
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        infer_source(tmp_path)
    assert message in str(caught.value)
    assert f"and run `tailfill init {tmp_path}` again" in str(caught.value)


def test_class_folders_count_more_than_files_that_are_not_read(tmp_path: Path, picture: Picture) -> None:
    for kind in ("cat", "dog"):
        picture(tmp_path / kind / "0.png")
    (tmp_path / "lists.mat").write_text("MATLAB")
    assert infer_source(tmp_path).dataset.source == "folder"
