"""Implements `tailfill verify`: checks that everything that led to a study's final models is in the store, unchanged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from shared.artifacts.artifacts import Artifacts
from shared.errors import ConfigError
from shared.pipeline.lineage import Lineage, studies
from shared.pipeline.lineage import verify as verify_study
from shared.pipeline.stored import opened_store

SHOWN = 50  # problems per study in the text; --json has all


def verify(location: str | None, workdir: Path | None, as_json: bool) -> tuple[str, bool]:
    """Returns the text for stdout, and whether all studies are whole: that of a work directory, or all that a store has.

    Raises ConfigError if the location is wrong or has no study, and the errors of the store.
    """
    with opened_store(location, workdir) as opened:
        found = studies(opened.store, opened.study)
        if not found:
            raise ConfigError(
                f"{opened.store.url}: nothing of {opened.study or 'any study'} is committed there; check bucket and prefix, or run a study first"
            )
        checked = [
            verify_study(Artifacts(opened.store, name, opened.settings.cache), places) for name, places in found.items()
        ]
        whole = all(lineage.whole for lineage in checked)
        return _json(opened.store.url, checked) if as_json else describe(opened.store.url, checked), whole


def describe(url: str, checked: Sequence[Lineage]) -> str:
    """Returns the result as text."""
    return "\n".join(line for lineage in checked for line in _lines(url, lineage))


def _lines(url: str, lineage: Lineage) -> list[str]:
    sizes = lineage.sizes
    counts = f"{len(lineage.manifests)} results and {len(sizes)} files ({sum(sizes.values()) / 2**20:,.1f} MiB)"
    lines = [f"{problem.kind}: {url}/{problem.object}: {problem.reason}" for problem in lineage.problems[:SHOWN]]
    if (others := len(lineage.problems) - SHOWN) > 0:
        lines.append(f"and {others} others, which --json lists")
    if lineage.report is None:
        lines.append(f"{lineage.study}: not whole, as no report is committed; {counts} are, and were read")
    if lineage.problems:
        kinds = [problem.kind for problem in lineage.problems]
        numbers = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        lines.append(
            f"{lineage.study}: not whole: {numbers}; restore them from a copy, or `tailfill run STUDY.yaml --rerun STAGE` makes a stage again"
        )
    if lineage.whole and lineage.report is not None:
        report = lineage.report
        lines.append(f"{lineage.study}: whole: {counts}, from the data to the report of {report.run.created}")
        lines.append(f"{lineage.study}: digest of the report: {report.digest}")
    return lines


def _json(url: str, checked: Sequence[Lineage]) -> str:
    rows = [
        {
            "study": lineage.study,
            "whole": lineage.whole,
            "report": lineage.report.digest if lineage.report else None,
            "results": len(lineage.manifests),
            "files": len(lineage.sizes),
            "bytes": sum(lineage.sizes.values()),
            "problems": [asdict(problem) for problem in lineage.problems],
        }
        for lineage in checked
    ]
    return json.dumps({"store": url, "whole": all(lineage.whole for lineage in checked), "studies": rows}, indent=1)
