from __future__ import annotations

from pathlib import Path

import pytest

from shared.deploy.listing import list_images
from shared.errors import ConfigError, DataError


def names(*arguments: Path) -> list[str]:
    return [image.name for image in list_images(arguments)]


def test_files_folders_and_tables_are_listed_in_order(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.jpg", "a/3.webp", "a/notes.txt"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    table = tmp_path / "list.csv"
    table.write_text("id,file\n1,images/b/1.jpg\n2,images/gone.png\n")
    single = tmp_path / "images" / "a" / "notes.txt"
    found = list_images([tmp_path / "images", table, single])
    root = str(tmp_path / "images")
    assert [image.name for image in found] == [
        f"{root}/a/3.webp", f"{root}/b/1.jpg", f"{root}/b/2.PNG", "images/b/1.jpg", "images/gone.png", str(single),
    ]  # fmt: skip
    assert found[3].path == tmp_path / "images/b/1.jpg"
    assert not any(image.fault for image in found)


@pytest.mark.parametrize(
    "header", ["path", "image", "file", "filename", "file_name", "anything", "label,path", "image,path"]
)
def test_the_column_of_paths(tmp_path: Path, header: str) -> None:
    columns = header.split(",")
    table = tmp_path / "list.csv"
    table.write_text(f"{header}\n{','.join(f'{c}.png' for c in columns)}\n")
    assert names(table) == ["path.png" if "path" in columns else f"{columns[0]}.png"]


@pytest.mark.parametrize("path", ["../secret.png", "/etc/passwd", "a/../../b.png", ""])
def test_a_row_that_leaves_the_folder_is_a_fault_of_that_image_alone(tmp_path: Path, path: str) -> None:
    (tmp_path / "list.csv").write_text(f'path,n\n"{path}",1\nfine.png,2\n')
    bad, fine = list_images([tmp_path / "list.csv"])
    assert bad.name == path
    assert bad.fault is not None
    assert "list.csv line 2" in bad.fault
    assert fine.fault is None


def test_a_link_out_of_the_folder_is_a_fault(tmp_path: Path) -> None:
    folder = tmp_path / "list"
    folder.mkdir()
    (tmp_path / "secret.png").touch()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "list.csv").write_text("path\nlink.png\n")
    assert "leaves the folder" in str(list_images([folder / "list.csv"])[0].fault)


def test_what_holds_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no image"):
        list_images([tmp_path])
    table = tmp_path / "list.csv"
    table.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"none of the columns path, image.*\['a', 'b'\]"):
        list_images([table])
    table.write_text("path\n")
    with pytest.raises(ConfigError, match="holds no image"):
        list_images([table])
    table.write_text("path,n\na.png\n")
    with pytest.raises(DataError, match="must have 2 cells"):
        list_images([table])
    with pytest.raises(DataError, match="not found"):
        list_images([tmp_path / "other.csv"])
