"""Writes the page on which a person reviews exported generated images, and the real images that it shows beside them.

The page is one static file: it reads nothing but the images of its folder, and keeps its state in the browser.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

from shared.data.imageset import ImageSet
from shared.deploy.generated import WrittenImage
from shared.deploy.image_folder import REAL, ExportFolder, image_suffix

PAGE = "review.html"


def write_review_page(
    study: str, experiment: str, written: Sequence[WrittenImage], train: ImageSet, folder: ExportFolder
) -> None:
    """Writes `review.html` for the images of an export, and the training image that each of them is nearest to.

    Without scores, that is the training image whose labels it has. `train` are all images on which any repetition was trained, and no others are shown.
    """
    at = {path: row for row, path in reversed(list(enumerate(train.paths)))}
    files = dict[int, str]()
    images = []
    for image in written:
        facts = image.facts
        named = (facts.get("copy_of"), facts.get("neighbour"), facts["source_image"])
        real = next(at[path] for path in named if path in at)
        if real not in files:
            encoded = train.encoded[real]
            files[real] = f"{REAL}/{real:06d}{image_suffix(encoded, train.paths[real])}"
            folder.write(files[real], encoded)
        images.append(_entry(image, files[real]))
    names = hashlib.sha256("\n".join(image["id"] for image in images).encode()).hexdigest()[:16]
    data = {"study": study, "experiment": experiment, "key": f"tailfill-review/{study}/{names}", "images": images}
    template = resources.files("shared.deploy").joinpath(PAGE).read_text(encoding="utf-8")
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    folder.write(PAGE, template.replace("{{ data }}", text).encode())


def _entry(image: WrittenImage, real: str) -> dict[str, Any]:
    """Returns what the page knows of an image."""
    facts = image.facts
    return {
        "id": facts["id"],
        "file": image.file,
        "filled": image.filled,
        "labels": image.labels,
        "real": real,
        "plausibility": facts.get("plausibility"),
        "nearness": facts.get("as_near"),
        "refused": facts.get("refused_by_scores", facts["refused"]),
        "decision": facts.get("reviewed"),
    }
