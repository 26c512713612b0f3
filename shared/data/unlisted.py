"""Counts the images of a data set that its tables do not name, for `tailfill init`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from shared.data.source import SourceImage
from shared.data.sources.infer_contents import MASKS
from shared.data.sources.infer_paths import BESIDE_IMAGES
from shared.data.sources.members import images_below
from shared.names import shown

FOLDERS = 3  # folders in the line


def unlisted_images(root: Path, images: Iterable[SourceImage]) -> str | None:
    """Returns how many images below a folder are not among those that were listed, and in which folders; None if all are, but for masks."""
    listed = {image.content for image in images if isinstance(image.content, Path)}
    below = [path for path in images_below(root.resolve()) if path not in listed]
    below = [path for path in below if not (path.is_symlink() and path.resolve() in listed)]
    folders = Counter(path.parent.relative_to(root.resolve()) for path in below)
    for folder in list(folders):
        if any(part.lower() in MASKS | BESIDE_IMAGES for part in folder.parts):
            del folders[folder]
    if not folders:
        return None
    named = ", ".join(f"{shown(f'{folder}/')} ({count:,})" for folder, count in folders.most_common(FOLDERS))
    return f"{folders.total():,} images are left out, as no usable row names them: {named}{' …' if len(folders) > FOLDERS else ''}"
