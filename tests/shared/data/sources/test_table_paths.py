from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.data.problems import Problems
from shared.data.sources.paths import PathCheck, what_exists
from shared.data.sources.table_paths import TablePaths, image_paths


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    touch(tmp_path / "secret.png")
    for name in ("a.png", "b/c.jpg", "b/notes.txt", ".hidden/d.png", "__MACOSX/._a.png"):
        touch(tmp_path / "root" / name)
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    return tmp_path / "root"


def test_names_are_those_of_images_below_the_folder(folder: Path) -> None:
    assert list(image_paths(folder)) == ["a.png", "b/c.jpg"]
    paths = TablePaths(folder, lookup="name")
    assert (paths.named("c"), paths.named("c.jpg"), paths.named("secret"), paths.named("../secret")) == (
        ["b/c.jpg"],
        ["b/c.jpg"],
        [],
        [],
    )


PARTS = st.sampled_from(["..", ".", "", "/", "\\", "C:", "a.png", "b", "link", "secret.png", "x://", "\0", "e\u0301"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(PARTS, max_size=6), sign=st.sampled_from("/\\"), prefix=st.sampled_from(["", "/", "..", "C:\\"]))
def test_no_cell_leads_out(folder: Path, parts: list[str], sign: str, prefix: str) -> None:
    cell, problems = sign.join(parts), Problems("skip")
    for paths in (TablePaths(folder, prefix), TablePaths(folder, prefix, "name")):
        listed = paths.listed(cell, "line 1", problems)
        found = None if listed is None else PathCheck(folder, problems).find(listed, "line 1")
        if found is not None:
            assert found[1].is_relative_to(os.path.realpath(folder))
        if paths.exists(cell) and not any(part in cell for part in ("link", "..")):
            assert found is not None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(PARTS, max_size=4), within=st.sampled_from(["..", "/", "b", "link", "b/../..", "C:", "\0"]))
def test_no_folder_of_a_table_leads_out(folder: Path, parts: list[str], within: str) -> None:
    for paths in (TablePaths(folder), TablePaths(folder, lookup="name")):
        problems = Problems("skip")
        listed = paths.listed("/".join(parts), "line 1", problems, within=within)
        found = None if listed is None else PathCheck(folder, problems).find(listed, "line 1")
        if found is not None:
            assert found[1].is_relative_to(os.path.realpath(folder))


def test_what_exists_in_place_of_a_missing_file(folder: Path) -> None:
    assert what_exists(folder / "a.jpeg") == "; there is 'a.png'"
    assert what_exists(folder / "B" / "c.jpg") == "; there is 'b'"
    assert what_exists(folder / "b" / "notes.png") == ""  # the file of that name is no image
    assert what_exists(folder / "q" / "a.png") == ""
