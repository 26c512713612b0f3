from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from shared.deploy.listing import list_images
from shared.errors import ConfigError, DataError

PIXEL = io.BytesIO()
Image.new("RGB", (1, 1)).save(PIXEL, "PNG")


def names(*arguments: Path) -> list[str]:
    return [image.name for image in list_images(arguments)]


def save(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PIXEL.getvalue())


def test_files_folders_and_tables_are_listed_in_order(tmp_path: Path) -> None:
    images = tmp_path / "images"
    save(*(images / name for name in ("b/2.PNG", "b/1.jpg", "a/3.webp", "a/notes.txt", ".git/4.png", "a/._3.webp")))
    table = tmp_path / "list.csv"
    table.write_text("id,file\n1,images/b/1.jpg\n2,images/gone.png\n")
    single = images / "a" / "notes.txt"
    found = list_images([images, table, single, tmp_path / "gone.png"])
    assert [image.name for image in found] == [
        f"{images}/a/3.webp", f"{images}/b/1.jpg", f"{images}/b/2.PNG", "images/b/1.jpg", "images/gone.png", str(single),
        str(tmp_path / "gone.png"),
    ]  # fmt: skip
    assert found[3].path == tmp_path / "images/b/1.jpg"
    assert not any(image.fault for image in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path\na.png\nd/b.png\n", ["a.png", "d/b.png"]),
        ("label,anything\nx,a.png\ny,d/b.png\n", ["a.png", "d/b.png"]),
        ("a.png\nd/b.png\n", ["a.png", "d/b.png"]),
        ("a.png;x\nd/b.png;y\n", ["a.png", "d/b.png"]),
        ("sep=;\nimage;n\na.png;1\n", ["a.png"]),
        ("image\tn\na.png\t1\n", ["a.png"]),
        ("\ufeffimage,n\n a.png ,1\n", ["a.png"]),
        ("# made by me\npath,n\n./a.png,1\n", ["a.png"]),
        ("path,n\nd\\b.png,1\n", ["d/b.png"]),
        ("id,n\nb,1\n", ["d/b.png"]),
        ("path,n\n/home/me/{name}/d/b.png,1\n", ["d/b.png"]),
        ("path,n\na.png,1\na.png,1\n", ["a.png", "a.png"]),
    ],
)
def test_a_table_is_read_as_that_of_a_data_set(tmp_path: Path, text: str, expected: list[str]) -> None:
    save(tmp_path / "a.png", tmp_path / "d/b.png")
    table = tmp_path / "list.csv"
    table.write_text(text.replace("{name}", tmp_path.name))
    found = list_images([table])
    assert [image.path.relative_to(tmp_path).as_posix() for image in found] == expected
    assert not any(image.fault for image in found)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("../secret.png", "leaves the folder"), ("/etc/passwd", "absolute path"), ("a/../../b.png", "leaves the folder"), ('""', "no path"),
        ("https://x.org/a.png", "is a URL"), ("C:\\a.png", "absolute path"), ("link.png", "leaves the folder"), (".git/a.png", "no data"),
        ("b\x1b[2J.png", "control character"), ("x.png,too,many", "wrong number of cells"),
    ],
)  # fmt: skip
def test_a_bad_row_is_a_fault_of_that_image_alone(tmp_path: Path, cell: str, reason: str) -> None:
    folder = tmp_path / "list"
    save(tmp_path / "secret.png", folder / "fine.png", folder / ".git/a.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    table = folder / "list.csv"
    table.write_text(f"path,n\n{cell if 'too' in cell else cell + ',1'}\nfine.png,2\n")
    bad, fine = list_images([table])
    assert bad.fault is not None
    assert reason in bad.fault
    assert "line 2" in f"{bad.name} {bad.fault}"
    assert (fine.name, fine.fault) == ("fine.png", None)


def test_what_holds_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no image"):
        list_images([tmp_path])
    table = tmp_path / "list.csv"
    table.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no column names image files below"):
        list_images([table])
    table.write_text("path\n")
    with pytest.raises(DataError, match="has no rows"):
        list_images([table])
    with pytest.raises(DataError, match=r"other\.csv: cannot be read"):
        list_images([tmp_path / "other.csv"])


def test_images_of_which_none_can_be_read_are_one_error_before_a_model_is_loaded(tmp_path: Path) -> None:
    save(tmp_path / "Photo.JPG")
    with pytest.raises(ConfigError, match=r"photo\.jpg': does not exist; there is 'Photo\.JPG'; name image files"):
        list_images([tmp_path / "photo.jpg"])
    with pytest.raises(ConfigError, match="and no other of the 3 is an image"):
        list_images([tmp_path / f"{i}.png" for i in range(3)])
    with pytest.raises(ConfigError, match="is a URL; save the image"):
        list_images([Path("https://example.org/a.png")])
    with pytest.raises(ConfigError, match="does not exist"):
        list_images([tmp_path / ("x" * 300)])
    notes, empty = tmp_path / "notes.txt", tmp_path / "empty.png"
    notes.write_text("cat.png")
    empty.touch()
    with pytest.raises(
        ConfigError, match=r"notes\.txt': not an image: is in none of the formats JPEG, .*; name image files"
    ):
        list_images([notes])
    with pytest.raises(ConfigError, match=r"empty\.png': empty file: .* and no other of the 2 is an image"):
        list_images([empty, notes])
    assert len(list_images([notes, tmp_path / "Photo.JPG"])) == 2
    with pytest.raises(ConfigError, match=r"labels\.xlsx': is a spreadsheet; save it as a CSV, and name that"):
        list_images([tmp_path / "labels.xlsx"])


def test_an_image_that_only_its_study_may_refuse_is_listed(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    large = tmp_path / "large.png"
    Image.new("1", (15_000, 14_000)).save(large)  # Pillow refuses as many pixels unless it is told that they are meant
    assert names(large) == [str(large)]
    assert not recwarn.list


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_said(tmp_path: Path) -> None:
    save(tmp_path / "a.png", tmp_path / "closed/b.png")
    (tmp_path / "closed").chmod(0)
    with pytest.raises(DataError, match="closed': cannot be listed"):
        list_images([tmp_path])
