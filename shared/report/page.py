"""Writes the page: all results of a study in one self-contained HTML file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from markupsafe import Markup, escape

from shared.data.manual_images import copied_rows
from shared.log import duration
from shared.metrics.forecast import ENOUGH_UNITS
from shared.metrics.table import METRICS, Format, metric_named
from shared.report.answer import TONES, interval_text, p_text, points
from shared.report.budget_parity import incomplete_searches
from shared.report.class_readings import ClassReadings, Estimate
from shared.report.content import Report
from shared.report.forecast import beside_truth, hours_text
from shared.report.generation import GeneratedSet
from shared.report.inputs import StudyInputs
from shared.report.lineage import gpu_budgets, hours
from shared.report.money import amount_text
from shared.report.paper_table import PAPER_ROWS, SOURCE
from shared.report.pictures import ClassPictures, ManualPair, class_pictures, manual_pairs, sheet_uri, thumbnail_side
from shared.report.results import PARAMETERS, parameter_values, temperatures_of
from shared.report.scores import Spread
from shared.report.template import page_template, style_sheet

IMAGE_WORDS = {"real": "real", "real+synthetic": "real + generated", "real+copies": "real + copies (placebo)"}
MEASURES = {
    "kid": "Kernel distance (KID) to the real images of the filled classes, on the judges' features; 0 if both have the same distribution",
    "precision": "Precision: share of generated images that look like real ones",
    "recall": "Recall: share of real images that lie among generated ones",
    "density": "Density: how densely real images surround the generated ones (about 1 for real images)",
    "coverage": "Coverage: share of real images with a generated image nearby",
}
NEARNESS = {
    "median_ratio": "Median neighbour ratio of generated images among training images",
    "held_out_median_ratio": "Median neighbour ratio of held-out real images",
    "copies": "Generated images that are copies of a training image by their perceptual hash",
    "leaks": "Generated images that are copies of a validation or test image by their perceptual hash; they are never accepted",
    "near_copies": "Generated images nearer to a training image than 99 % of held-out real images",
    "near_test_copies": "Generated images nearer to a test image than 99 % of held-out real images (reported, not used for selection)",
}


@dataclass(frozen=True)
class ManualImages:
    """Holds examples of manual images, and the labels of the experiments that train on such copies."""

    pairs: list[ManualPair]
    which: Literal["rare", "all"]
    """Says whether all images are copied, or those of rare classes."""
    used_by: list[str]


def render(report: Report) -> str:
    """Returns the page as HTML."""
    template = page_template(
        "shared.report",
        "report.html.j2",
        number=number,
        spread=spread,
        points=points,
        interval=interval_text,
        p=p_text,
        duration=duration,
        per_cent=per_cent,
        of_hours=hours_text,
        level=level,
        gain=gain,
        position=lambda names, name: names.index(name) % 6,
        amount=amount_text,
        code=code,
        breakable=breakable,
    )
    study = report.study
    return template.render(
        report=report,
        study=study,
        config=study.config,
        info=study.info,
        scores=report.scores,
        answer=report.answer,
        judged=report.judged,
        figures=report.figures,
        rare_names=[study.schema.class_names[i] for i in study.rare],
        experiments=[_experiment_row(report, i) for i in range(len(study.experiments))],
        pictures=_pictures(report),
        manual=_manual_images(study),
        pixelated=study.info.resolution <= 64,
        sheets={g.name: _sheets(g) for g in report.generated},
        judges={g.name: _measure_rows(g) for g in report.generated},
        parameter_names=PARAMETERS,
        paper_source=SOURCE,
        has_paper_rows=any(e.config.paper_row is not None for e in study.experiments),
        hours=hours,
        forecast=beside_truth(study.config.forecast, report.costs),
        gpu_budgets=gpu_budgets(study.results),
        incomplete_searches=incomplete_searches(study),
        tones=TONES,
        verdict_metric=metric_named(report.judged.rule.metric) if report.judged else None,
        # losses come first, as in the paper's table
        columns=sorted((m for m in METRICS if m.place == "results"), key=lambda m: m.format != "loss"),
        calibration_columns=[m for m in METRICS if m.place == "calibration"],
        group_columns=[m for m in METRICS if m.headline and m.by_group is not None],
        baseline=report.classes.baseline,
        over="repetitions and test folds" if study.folds else "repetitions and test images",
        confidence=f"{100 * (1 - report.classes.alpha):g} %",
        by_chance=_by_chance(report.classes),
        enough=ENOUGH_UNITS,
        few_tested=any(reading.few and reading.test_units for reading in report.classes.classes),
        grouped=any(reading.test_units != reading.test_images for reading in report.classes.classes),
        style=style_sheet("shared.report", "report.css"),
        now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def number(value: Any) -> str:
    """Formats a parameter or count: `9.453e-03` becomes 0.009453, 12000 becomes 12,000."""
    if value is None:
        return "–"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.3e}"


def per_cent(value: float | None, digits: int = 1) -> str:
    """Formats a share in per cent."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def level(found: Estimate) -> Markup:
    """Formats the mean of a share with its interval below, in per cent."""
    if found.mean is None:
        return Markup("–")
    if found.interval is None:
        return escape(f"{100 * found.mean:.1f}")
    low, high = found.interval
    return Markup('{}<span class="range">{} to {}</span>').format(
        f"{100 * found.mean:.1f}", f"{100 * low:.1f}", f"{100 * high:.1f}"
    )


def gain(found: Estimate) -> Markup:
    """Formats the mean of a difference with its interval below, in points."""
    if found.mean is None:
        return Markup("–")
    if found.interval is None:
        return escape(points(found.mean))
    return Markup('<b>{}</b><span class="range">{}</span>').format(points(found.mean), interval_text(found.interval))


def _by_chance(classes: ClassReadings) -> str:
    """Returns about how many of the intervals of gains would exclude 0 by chance alone: `about 2`."""
    intervals = sum(estimate.interval is not None for reading in classes.classes for estimate in reading.gain.values())
    expected = classes.alpha * intervals
    return f"about {expected:.0f}" if expected >= 1.5 else "about one" if expected >= 0.5 else "hardly one"


def breakable(name: str) -> Markup:
    """Returns a name, escaped, that may be broken into lines after a slash or an underscore, as in a narrow table."""
    return Markup(re.sub(r"([/_])", r"\1<wbr>", str(escape(name))))  # noqa: S704 - it is escaped


def code(text: str) -> Markup:
    """Returns text, escaped, in which what stands between backticks is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - it is escaped


def spread(found: Spread, form: Format = "share") -> Markup:
    """Formats mean ± standard deviation, shares in per cent."""
    if found.mean is None:
        return Markup("–")
    factor, digits = (100, 1) if form == "share" else (1, 3)
    text = f"{found.mean * factor:.{digits}f}"
    if found.sd is None:
        return escape(text)
    return Markup('{}<span class="sd"> ± {}</span>').format(text, f"{found.sd * factor:.{digits}f}")


def _experiment_row(report: Report, index: int) -> dict[str, Any]:
    experiment = report.study.experiments[index]
    name = experiment.config.name
    row = experiment.config.paper_row
    return {
        "name": name,
        "label": experiment.label,
        "series": index % 6,
        "images": IMAGE_WORDS[experiment.config.images],
        "augmentation": experiment.config.augmentation,
        "parameters": parameter_values(experiment),
        "seeds": len(experiment.finals),
        "temperatures": [t for result in experiment.finals.values() for t in temperatures_of(result).values()],
        "metric": {m.name: report.scores.spread(name, m.name) for m in METRICS},
        "baseline": report.judged is not None and name == report.judged.rule.baseline,
        "paper": PAPER_ROWS[row] if row is not None else None,
        "tune": experiment.tune.json("best.json") if experiment.tune else None,
        "tune_summary": experiment.tune.manifest.summary if experiment.tune else None,
    }


def _pictures(report: Report) -> list[ClassPictures]:
    study = report.study
    if not len(study.rare):
        return []
    first = report.generated[0] if report.generated else None
    return class_pictures(
        study.images.of("train"),
        first.images if first else None,
        first.accepted if first else None,
        study.rare.tolist(),
        thumbnail_side(study.info.source, study.info.resolution),
    )


def _manual_images(study: StudyInputs) -> list[ManualImages]:
    """Returns examples of the images that experiments with manual images copy, once for each setting of which there are any."""
    train, side = study.images.of("train"), thumbnail_side(study.info.source, study.info.resolution)
    found = []
    settings: tuple[Literal["rare", "all"], ...] = ("rare", "all")
    for which in settings:
        used_by = [e.label for e in study.experiments if which in parameter_values(e).get("manual_images", [])]
        if used_by and (pairs := manual_pairs(train, copied_rows(train.labels, which, study.rare), side)):
            found.append(ManualImages(pairs, which, used_by))
    return found


def _sheets(generated: GeneratedSet) -> dict[str, str]:
    found = {}
    for name, result in (("samples.png", generated.finetune), ("copies.png", generated.score)):
        if result is not None and name in result.files:
            found[name.removesuffix(".png")] = sheet_uri(result.files[name].read_bytes())
    return found


def _measure_rows(generated: GeneratedSet) -> list[tuple[str, str]]:
    """Returns the rows of the table of measures of a set; what was not measured is left out."""
    judges = generated.judges
    cas, nearness, accuracy = (judges.get(key) or {} for key in ("cas", "neighbours", "accuracy"))
    real = cas.get("real") or {}
    rows = [
        (
            f"Trained on generated images alone, {m.of_generated} on real ones (on real images: {number(real.get(m.name))})",
            cas.get(m.name),
        )
        for m in METRICS
        if m.of_generated
    ]
    rows += [(words, judges.get(key)) for key, words in MEASURES.items()]
    rows += [(words, nearness.get(key)) for key, words in NEARNESS.items()]
    rows += [(f"Judges' own out-of-fold accuracy, {group}", value) for group, value in accuracy.items()]
    return [(words, f"{v:.3f}" if isinstance(v, float) else str(v)) for words, v in rows if v is not None]
