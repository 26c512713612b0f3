"""Runs `init` on the layouts of public data sets, and compares what it reads with what a person expects."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from jobs.cli.init import init
from shared.config.load import load_study
from shared.data.problems import Problems
from shared.data.sources.table import open_source
from shared.errors import DataError
from tests.support.public_layouts import PUBLIC_LAYOUTS
from tests.support.public_layouts.layout import Drawing, Layout

READ = [layout for layout in PUBLIC_LAYOUTS if not layout.refused]
REFUSED = [layout for layout in PUBLIC_LAYOUTS if layout.refused]


@pytest.mark.parametrize("layout", READ, ids=[layout.name for layout in READ])
def test_a_public_set_is_read_as_a_person_expects(layout: Layout, tmp_path: Path) -> None:
    layout.draw(Drawing(tmp_path / "data"))
    lines = init(tmp_path / "data", tmp_path / "study.yaml")
    study = load_study(tmp_path / "study.yaml")
    problems = Problems("fail")
    assert study.dataset.root is not None
    listing = open_source(study.dataset, Path(study.dataset.root), study.seed, problems)
    images = list(listing.images)
    problems.raise_if_failing()
    missing = [image.path for image in images if isinstance(image.content, Path) and not image.content.is_file()]
    found = []
    for columns, group in zip(listing.schema.slices().values(), listing.schema.groups, strict=True):
        counts: dict[str, Counter[str]] = {}
        for image in images:
            carried = np.flatnonzero(image.labels[columns] == 1)
            counts.setdefault(image.split or "", Counter()).update(group.classes[i] for i in carried)
        for each in counts.values():
            each.update(dict.fromkeys(group.classes, 0))
        found.append({split: dict(sorted(each.items())) for split, each in counts.items()})
    wanted = [{split: dict(sorted(each.items())) for split, each in group.items()} for group in layout.groups]
    assert sorted(found, key=str) == sorted(wanted, key=str), "\n".join(lines)
    rare = [name.partition("/")[2] for name in study.written.rare.classes]
    assert sorted(rare) == sorted(layout.rare)
    assert not missing
    assert not [line for line in lines if line.startswith("bad:")]
    assert [words for words in layout.says if not any(words in line for line in lines)] == [], "\n".join(lines)
    carried = np.stack([image.labels for image in images]) == 1  # `prepare` fails if a class has no image
    assert [
        name for name, any_image in zip(listing.schema.class_names, carried.any(axis=0), strict=True) if not any_image
    ] == []
    units = {image.group for image in images if image.group is not None}
    if layout.units is not None:
        assert 1 < len(units) < len(images)
        assert len(units) == (layout.units or len(units))


@pytest.mark.parametrize("layout", REFUSED, ids=[layout.name for layout in REFUSED])
def test_a_public_set_that_cannot_be_read_is_refused_with_a_remedy(layout: Layout, tmp_path: Path) -> None:
    layout.draw(Drawing(tmp_path / "data"))
    with pytest.raises(DataError) as caught:
        init(tmp_path / "data", tmp_path / "study.yaml")
    assert [words for words in layout.refused if words not in str(caught.value)] == [], str(caught.value)


def test_the_page_lists_every_layout() -> None:
    page = Path("docs/public-layouts.md").read_text()
    assert [layout.name for layout in PUBLIC_LAYOUTS if f"| {layout.name} |" not in page] == []
    assert all(part in page for layout in PUBLIC_LAYOUTS for part in layout.seen.split(", "))
