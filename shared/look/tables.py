"""Writes what was found as CSV tables, for a script or a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from shared.csv_cells import safe_cells
from shared.look.findings import Findings
from shared.report.pictures import label_words


def duplicates(findings: Findings) -> str:
    """Returns the pairs of similar images, those in two splits first, then those with different labels."""
    images, schema = findings.seen.images, findings.counts.schema
    rows = (
        [
            images[p.a].path, images[p.b].path, p.distance, "exact" if p.equal else "near", images[p.a].split or "", images[p.b].split or "",
            int(p.leak), p.labels, label_words(images[p.a].labels, schema), label_words(images[p.b].labels, schema),
            images[p.a].where, images[p.b].where,
        ]
        for p in findings.pairs or []
    )  # fmt: skip
    header = (
        "file_a",
        "file_b",
        "distance",
        "kind",
        "split_a",
        "split_b",
        "leak",
        "labels",
        "labels_a",
        "labels_b",
        "where_a",
        "where_b",
    )
    return _csv(header, rows)


def lookalikes(findings: Findings) -> str:
    """Returns the images of two splits that look alike and are no copies, the nearest first."""
    images, schema = findings.seen.images, findings.counts.schema
    rows = (
        [
            images[p.image].path, images[p.other].path, f"{p.distance:.4f}", images[p.image].split or "", images[p.other].split or "",
            label_words(images[p.image].labels, schema), label_words(images[p.other].labels, schema), images[p.image].where, images[p.other].where,
        ]
        for p in findings.lookalikes
    )  # fmt: skip
    header = ("file_a", "file_b", "distance", "split_a", "split_b", "labels_a", "labels_b", "where_a", "where_b")
    return _csv(header, rows)


def suspects(findings: Findings) -> str:
    """Returns the labels that look wrong, group by group, the worst first."""
    images = findings.seen.images
    rows = (
        [
            images[s.image].path, images[s.image].split or "", group.group, s.given, s.suggested, f"{s.confidence:.4f}", f"{s.margin:.4f}",
            f"{s.probability:.4f}", images[s.image].where,
        ]
        for group in findings.judged or []
        for s in group.suspects
    )  # fmt: skip
    header = (
        "file",
        "split",
        "group",
        "given",
        "suggested",
        "self_confidence",
        "normalized_margin",
        "suggested_probability",
        "where",
    )
    return _csv(header, rows)


def odd(findings: Findings) -> str:
    """Returns the images that cannot be read, and those that stand out by their size or as they show one colour."""
    images, sizes = findings.seen.images, findings.seen.sizes
    unreadable = ([each.path, "", "", each.reason, each.message, each.where] for each in findings.seen.unreadable)
    standing_out = ([images[i].path, *sizes[i].tolist(), reason, "", images[i].where] for i, reason in findings.odd)
    return _csv(("file", "width", "height", "reason", "message", "where"), [*unreadable, *standing_out])


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(safe_cells(row) for row in rows)
    return text.getvalue()
