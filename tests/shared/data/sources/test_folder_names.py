from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.config.dataset import FolderSource
from shared.data.infer_source import infer_source
from shared.data.problems import Problems
from shared.data.sources.class_folders import read_folder
from shared.data.sources.folder_names import find_names

BIRDS = {"n02007558": "flamingo", "n02012849": "crane", "n03126707": "crane"}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "LOC_synset_mapping.txt",
            "n02007558 flamingo\nn02012849 crane, wading bird\nn03126707 crane\nn00000001 other\n",
        ),
        ("words.txt", "n02007558\tflamingo\nn02012849\tcrane\nn03126707\tcrane\n"),
        ("Labels.json", json.dumps(BIRDS)),
        (
            "imagenet_class_index.json",
            json.dumps({str(n): [code, name] for n, (code, name) in enumerate(BIRDS.items())}),
        ),
    ],
)
@pytest.mark.parametrize("above", [False, True])
def test_codes_get_the_names_that_a_file_says(
    tmp_path: Path, picture: Callable[[Path], Path], file: str, text: str, above: bool
) -> None:
    data = tmp_path / "train"
    for code in BIRDS:
        picture(data / code / f"{code}.png")
    (data.parent if above else data).joinpath(file).write_text(text)
    source = infer_source(data)
    assert isinstance(source.dataset, FolderSource)
    assert source.comments["names"] == f"as {file!r} says"
    listing = read_folder(source.dataset, source.root, Problems("fail"))
    assert listing.schema.class_names == ("label/crane (n02012849)", "label/crane (n03126707)", "label/flamingo")
    labels = {image.path: image.labels.tolist() for image in listing.images}
    assert labels["n02007558/n02007558.png"] == [0, 0, 1]


def test_numbers_get_names_too_and_equal_names_are_one_class(tmp_path: Path, picture: Callable[[Path], Path]) -> None:
    for code in ("1", "2", "10"):
        picture(tmp_path / code / f"{code}.png")
    (tmp_path / "cat_to_name.json").write_text(json.dumps({"1": "rose", "2": "lily", "10": "iris", "11": "more"}))
    source = infer_source(tmp_path)
    assert isinstance(source.dataset, FolderSource)
    assert source.dataset.names == {"1": "rose", "10": "iris", "2": "lily"}
    merged = source.dataset.model_copy(update={"names": {"1": "rose", "2": "rose"}})
    assert read_folder(merged, tmp_path, Problems("fail")).schema.class_names == ("label/10", "label/rose")


def test_a_code_without_a_name_keeps_its_code_and_is_said(tmp_path: Path, picture: Callable[[Path], Path]) -> None:
    for code in (*BIRDS, "n09999999"):
        picture(tmp_path / code / f"{code}.png")
    (tmp_path / "words.txt").write_text("".join(f"{code}\t{name}\n" for code, name in BIRDS.items()))
    (tmp_path / "few.txt").write_text("n02007558 pink\n")
    source = infer_source(tmp_path)
    assert source.notes == ("'words.txt' has no name for n09999999",)
    assert isinstance(source.dataset, FolderSource)
    listing = read_folder(source.dataset, source.root, Problems("fail"))
    assert [name.partition("/")[2][:9] for name in listing.schema.class_names] == [
        "crane (n0",
        "crane (n0",
        "flamingo",
        "n09999999",
    ]


@pytest.mark.parametrize(
    ("folders", "text"),
    [
        ({"n02007558", "n02012849"}, "n02007558 flamingo\n"),
        ({"cat", "dog"}, "cat Katze\ndog Hund\n"),
        ({"n02007558"}, "[1, 2]"),
        ({"1", "2"}, "1 3\n2 4\n"),
        ({"1", "2"}, "1 cat/a.jpg\n2 dog/b.jpg\n"),
        ({"1", "2"}, "1 cat\n2 dog\n1 cow\n"),
        ({"1\n"}, "1 cat\n"),
        (set[str](), "n02007558 flamingo\n"),
    ],
    ids=[
        "one is missing",
        "names already",
        "a list",
        "numbers",
        "a list of images",
        "a code twice",
        "a line break",
        "no folders",
    ],
)
def test_a_file_that_does_not_name_all_is_passed_over(tmp_path: Path, folders: set[str], text: str) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a.txt", "a.json"):
        (tmp_path / "data" / name).write_text(text)
    (tmp_path / "data" / "b.json").write_text("{")
    (tmp_path / "data" / "c.txt").write_bytes(b"\xff\xfe")
    assert find_names(tmp_path / "data", folders) is None
