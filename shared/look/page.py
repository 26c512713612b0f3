"""Writes what was found as one self-contained page, in the style of a study's report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from shared.data.schema import LabelSchema
from shared.look.charts import class_bars, size_dots
from shared.look.copies import Pair
from shared.look.findings import Findings
from shared.look.suspects import Judged
from shared.report.page import number, per_cent
from shared.report.pictures import label_words
from shared.report.svg import Plot
from shared.report.template import page_template, style_sheet

PAIRS = 48
"""Limits the pairs that are shown; the table has all."""
LOOKALIKES = 24
"""Limits the look-alikes in two splits that are shown; the table has all."""
SUSPECTS, LEAST_SUSPECTS = 96, 12
"""Limit the suspicious labels that are shown: of all groups together, and at least of each."""
ODD = 24
"""Limits the images that are shown as they stand out, and the unreadable ones that are named."""
CLASSES_TOGETHER = 40
"""Limits the classes of the table of classes that come together: the largest."""
CONFUSIONS = 8


@dataclass(frozen=True)
class Shown:
    """Holds an image with its texts."""

    uri: str
    path: str
    split: str
    words: str


@dataclass(frozen=True)
class Cell:
    """Holds a cell of the table of classes that come together."""

    count: int
    share: float
    """Gives the share of the images of the row's class that have the column's, from 0 to 1."""
    same: bool
    """Says whether the classes exclude each other, as answers to one question, or are the same."""


def render(findings: Findings) -> str:
    """Returns the page as HTML."""
    seen = findings.seen
    template = page_template("shared.look", "look.html.j2", number=number, per_cent=per_cent, code=_code)
    return template.render(
        findings=findings,
        counts=findings.counts,
        seen=seen,
        tone=_tone(findings),
        bars=_bars(findings),
        together=_together(findings) if findings.counts.has_pairs else None,
        sizes=_size_plot(findings),
        size_words=_size_words(findings),
        odd=[(_shown(findings, position), reason) for position, reason in findings.odd[:ODD]],
        odd_counts=Counter(reason for _, reason in findings.odd),
        unreadable=seen.unreadable[:ODD],
        unreadable_counts=Counter(each.reason for each in seen.unreadable),
        pairs=[(pair, _shown(findings, pair.a), _shown(findings, pair.b)) for pair in (findings.pairs or [])[:PAIRS]],
        pair_words=_pair_words,
        lookalikes=[(_shown(findings, p.image), _shown(findings, p.other)) for p in findings.lookalikes[:LOOKALIKES]],
        groups=[_group(findings, group) for group in findings.judged or []],
        styles=[style_sheet("shared.report", "report.css"), style_sheet("shared.look", "look.css")],
        now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _code(text: str) -> Markup:
    """Returns text in which what stands between back quotes is code."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts))


def _tone(findings: Findings) -> str:
    if findings.leaking or findings.conflicts or findings.seen.unreadable:
        return "bad"
    return "open" if findings.suspects else "neutral" if findings.judged is None else "good"


def _bars(findings: Findings) -> list[Plot]:
    counts = findings.counts
    plots = []
    for place, (name, columns) in enumerate(counts.schema.slices().items()):
        by_split = {split: values[columns] for split, values in counts.by_split.items()}
        rare = [full.partition("/")[2] for full in counts.tail.fill_to if full.startswith(f"{name}/")]
        plots.append(class_bars(name, place, counts.schema.group(name).classes, by_split, rare))
    return plots


def _together(findings: Findings) -> dict[str, Any]:
    """Returns the table of classes that come together, of the largest classes in their order."""
    schema, together = findings.counts.schema, findings.counts.together
    own = together.diagonal()
    columns = np.sort(np.argsort(-own, kind="stable")[:CLASSES_TOGETHER]).tolist()
    return {
        "names": [schema.class_names[c].replace("/", ": ", 1) for c in columns],
        "rows": [[_cell(schema, int(together[a, b]), int(own[a]), a, b) for b in columns] for a in columns],
        "left_out": schema.width - len(columns),
        "never": _never(schema, together, findings.counts.total),
    }


def _cell(schema: LabelSchema, count: int, own: int, a: int, b: int) -> Cell:
    group = schema.group_of(a)
    same = a == b or (group.kind == "one" and group.name == schema.group_of(b).name)
    return Cell(count, count / own if own else 0.0, same)


def _never(schema: LabelSchema, together: NDArray[np.int64], total: int) -> list[str]:
    """Returns the pairs of classes that never come together though 20 or more images would be expected to have both."""
    names, own = schema.class_names, together.diagonal()
    found = []
    for a in range(schema.width):
        for b in range(a + 1, schema.width):
            expected = int(own[a]) * int(own[b]) / total
            if not together[a, b] and expected >= 20 and not _cell(schema, 0, 1, a, b).same:
                found.append((-expected, f"{names[a]} and {names[b]}"))
    return [words for _, words in sorted(found)[:CONFUSIONS]]


def _size_plot(findings: Findings) -> Plot | None:
    sizes = findings.seen.sizes
    if len(sizes) == 0 or (sizes == sizes[0]).all():
        return None
    marked = np.zeros(len(sizes), np.bool_)
    marked[[position for position, reason in findings.odd if reason != "one colour"]] = True
    return size_dots(sizes, marked)


def _size_words(findings: Findings) -> str:
    sizes = findings.seen.sizes
    if len(sizes) == 0:
        return "No image could be read."
    looked = f"{len(sizes):,} images" if len(sizes) < findings.counts.total else "all images"
    if (sizes == sizes[0]).all():
        return f"{looked.capitalize()} have {sizes[0, 0]:,} × {sizes[0, 1]:,} pixels."
    shorter = sizes.min(axis=1)
    return f"Of {looked}, the shorter side has {int(shorter.min()):,} to {int(shorter.max()):,} pixels, in the middle {int(np.median(shorter)):,}."


def _shown(findings: Findings, position: int) -> Shown:
    image = findings.seen.images[position]
    words = label_words(image.labels, findings.counts.schema)
    return Shown(findings.seen.thumbnails[position], image.path, image.split or "", words or "no label")


def _pair_words(pair: Pair) -> str:
    if pair.equal:
        return "equal pixels"
    return f"nearly equal, {pair.distance} of 256 bits differ" if pair.distance else "nearly equal"


def _group(findings: Findings, judged: Judged) -> dict[str, Any]:
    most = max(LEAST_SUSPECTS, SUSPECTS // max(len(findings.judged or []), 1))
    suspects = judged.suspects
    swaps = Counter((each.given, each.suggested) for each in suspects)
    return {
        "judged": judged,
        "suspects": [(each, _shown(findings, each.image)) for each in suspects[:most]],
        "left_out": max(len(suspects) - most, 0),
        "swaps": [(*pair, n) for pair, n in swaps.most_common(CONFUSIONS) if n > 1],
    }
