from __future__ import annotations

from pathlib import Path

import numpy as np

from shared.data.source import SourceImage
from shared.data.unlisted import unlisted_images


def files(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return [folder / name for name in names]


def test_images_that_no_row_names_are_counted_by_folder(tmp_path: Path) -> None:
    named = files(tmp_path / "a", "0.png", "1.png")
    images = [SourceImage(path.name, "row", path.resolve(), np.ones(1, np.int8)) for path in named]
    files(tmp_path / "masks", "0.png")
    assert unlisted_images(tmp_path, images) is None
    files(tmp_path / "a", "left.png", "notes.txt")
    files(tmp_path / "b", "0.png", "1.png")
    (tmp_path / "b" / "link.png").symlink_to(named[0])
    said = unlisted_images(tmp_path, images)
    assert said == "3 images are left out, as no usable row names them: 'b/' (2), 'a/' (1)"
