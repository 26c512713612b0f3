"""Writes answers for a person (a table), a spreadsheet (CSV) and a program (JSON)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from shared.csv_cells import safe_cells
from shared.deploy.answers import UNKNOWN, GroupAnswer, answer
from shared.deploy.description import Description
from shared.deploy.predict import Predicted
from shared.terminal import escaped, shortened

WIDEST = 60  # characters of an image's name in the table


def as_table(description: Description, predicted: Iterable[Predicted], confidence: float) -> Iterator[str]:
    """Yields the lines of a table with a column per group."""
    rows = [["image", *(group.name for group in description.groups)]]
    for image, found in predicted:
        if isinstance(found, str):
            rows.append([shortened(image.name, WIDEST), f"error: {escaped(found)}"])
        else:
            rows.append([shortened(image.name, WIDEST), *map(_words, answer(description, found, confidence))])
    widths = [
        max(len(row[i]) for row in rows if len(row) > i and (len(row) > 2 or i == 0 or len(rows[0]) == 2))
        for i in range(len(rows[0]))
    ]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield "  ".join(cells).rstrip()


def as_csv(description: Description, predicted: Iterable[Predicted], confidence: float) -> Iterator[str]:
    """Yields the lines of a CSV: the image, per `one` group its label and probability, per `any` group its labels, separated by |, and the
    probability of each class, and `error`. A label that is withheld is “don't know”; in an `any` group, those are in a column of their own."""
    header = ["image"]
    for group in description.groups:
        header += [group.name]
        header += (
            [f"{group.name}_probability"]
            if group.kind == "one"
            else [f"{group.name}_unsure", *(f"{group.name}/{c}" for c in group.classes)]
        )
    yield _csv_line([*header, "error"])
    for image, found in predicted:
        if isinstance(found, str):
            yield _csv_line([image.name, *([""] * (len(header) - 1)), found])
            continue
        cells = [image.name]
        for each in answer(description, found, confidence):
            if each.group.kind == "one":
                cells += [each.labels[0] if each.labels else UNKNOWN, f"{each.probability:.4f}"]
            else:
                cells += [
                    "|".join(each.labels),
                    "|".join(each.withheld),
                    *(f"{p:.4f}" for p in each.probabilities.values()),
                ]
        yield _csv_line([*cells, ""])


def as_json(description: Description, predicted: Iterable[Predicted], confidence: float) -> Iterator[str]:
    """Yields the lines of one JSON object: the model, risk and coverage at the confidence, and a list of images."""
    head: dict[str, Any] = {
        "model": description.model_dump(mode="json", include={"study", "experiment", "repetitions", "chosen"}),
        "confidence": confidence,
        "measured": {name: _measured(description, name, confidence) for name in (g.name for g in description.groups)},
    }
    yield json.dumps(head, ensure_ascii=False)[:-1] + ', "images": ['
    before = None
    for image, found in predicted:
        if before is not None:
            yield before + ","
        entry: dict[str, Any] = {"image": image.name}
        if isinstance(found, str):
            entry["error"] = found
        else:
            entry["groups"] = {a.group.name: _tree(a) for a in answer(description, found, confidence)}
        before = json.dumps(entry, ensure_ascii=False)
    if before is not None:
        yield before
    yield "]}"


def measured_text(description: Description, confidence: float) -> Iterator[str]:
    """Yields a sentence per group that says how often its answers of at least that confidence were wrong on the study's test split."""
    for group in description.groups:
        found = description.abstention[group.name].at(confidence)
        if found.risk is None or found.coverage is None or found.interval is None:
            yield f"{group.name}: no answer on the study's test split was that sure, so nothing is known of the risk"
            continue
        low, high = (f"{100 * bound:.1f}" for bound in found.interval)
        answers = "answers" if group.kind == "one" else "answers to single classes"
        yield (
            f"{group.name}: {100 * found.risk:.1f} % of {answers} were wrong (95 % interval {low} to {high}) and {100 * found.coverage:.1f} % were given, "
            f"at confidence {found.confidence:g} on the {found.known} known labels of the study's test split"
        )


def _measured(description: Description, group: str, confidence: float) -> dict[str, Any]:
    found = description.abstention[group].at(confidence)
    return {
        "split": "test",
        "confidence": found.confidence,
        "known": found.known,
        "answered": found.answered,
        "wrong": found.wrong,
        "coverage": found.coverage,
        "risk": found.risk,
        "risk_interval": found.interval,
    }


def _tree(found: GroupAnswer) -> dict[str, Any]:
    probabilities = {label: round(p, 6) for label, p in found.probabilities.items()}
    if found.group.kind == "any":
        return {"labels": found.labels, "unsure": found.withheld, "probabilities": probabilities}
    label = found.labels[0] if found.labels else None
    return {"label": label, "probability": round(found.probability, 6), "probabilities": probabilities}


def _words(found: GroupAnswer) -> str:
    def sure(label: str) -> str:
        return f"{escaped(label)} {100 * found.probabilities[label]:.0f} %"

    if found.group.kind == "one":
        return sure(found.labels[0]) if found.labels else f"{UNKNOWN} ({sure(found.withheld[0])})"
    yes = ", ".join(map(sure, found.labels))
    unsure = f"{UNKNOWN}: {', '.join(map(sure, found.withheld))}" if found.withheld else ""
    return "; ".join(filter(None, [yes, unsure])) or "none"


def _csv_line(cells: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(safe_cells(cells))
    return out.getvalue().removesuffix("\r\n")
