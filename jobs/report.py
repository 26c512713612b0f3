"""`report`: reads the results of all stages and writes the page that answers the study's question."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from shared.artifacts.manifest import Manifest
from shared.config.stages import STAGES, ReportConfig
from shared.context import Context
from shared.log import Log
from shared.names import path_below

if TYPE_CHECKING:
    from shared.report.inputs import Results

log = Log("report")


def run(config: ReportConfig, context: Context) -> Manifest:
    """Fetches the files that the report reads (no weights), writes the report and commits it."""
    from shared.report.inputs import StageResult

    results = {}
    for role in log.progress(context.task.inputs, "results read", len(context.task.inputs), "results"):
        context.stop.raise_if_set()
        manifest = context.input(role)
        patterns = STAGES[manifest.stage].report_files
        wanted = [file for file in manifest.files if any(fnmatchcase(file.name, pattern) for pattern in patterns)]
        files = {file.name: context.artifacts.fetch(file) for file in wanted}
        results[role] = StageResult(manifest, files)
    files = report(config, results, context.scratch)
    tree = json.loads(files["results.json"].read_text())
    verdict = tree["verdict"] or {"arms": []}
    summary = {
        "answer": tree["answer"]["sentence"],
        "outcomes": {arm["arm"]: arm["outcome"] for arm in verdict["arms"]},
    }
    return context.commit(files, summary)


def report(config: ReportConfig, results: Results, out: Path) -> dict[str, Path]:
    """Writes `index.html`, `results.json`, `results.csv` and `plots/*.png` into `out`; returns the paths by name.

    Raises DataError if a committed file lacks what the report needs, or if repetitions were tested on different images.
    """
    from shared.config.search import Verdict
    from shared.report.answer import find_answer
    from shared.report.budget_parity import unequal_tuning_warning
    from shared.report.class_readings import read_classes
    from shared.report.content import Report
    from shared.report.figures import draw
    from shared.report.generation import read_generated
    from shared.report.inputs import read_study
    from shared.report.lineage import lineage_entries, stage_costs
    from shared.report.money import cost_in_money
    from shared.report.next_steps import Facts, next_steps
    from shared.report.page import render
    from shared.report.recommended import best_of, recommend
    from shared.report.results import results_tree, write_csv
    from shared.report.scores import judge, score_study

    study = read_study(config, results)
    scores = score_study(study)
    rule = config.verdict if isinstance(config.verdict, Verdict) else None
    judged = judge(rule, config.experiments, scores) if rule else None
    unequal = unequal_tuning_warning(study, judged)
    answer = find_answer(config, judged, [unequal] if unequal else [])
    log.info("answer", sentence=answer.sentence)
    generated = read_generated(study)
    entries = lineage_entries(results)
    costs, money = stage_costs(entries), cost_in_money(entries, config.prices)
    classes = read_classes(study, scores)
    validation = {e.config.name: best_of(study, e) for e in study.experiments if e.finals}
    recommended = recommend(study.config, validation, judged)
    steps = next_steps(Facts(study, scores, judged, classes, recommended, validation, entries, money))
    figures = draw(study, scores, judged, classes, generated)

    files = {"index.html": out / "index.html", "results.json": out / "results.json", "results.csv": out / "results.csv"}
    found = Report(
        study, scores, judged, answer, recommended, steps, classes, generated, figures, entries, costs, money
    )
    page = render(found)
    files["index.html"].write_text(page, encoding="utf-8")
    tree = results_tree(found)
    files["results.json"].write_text(json.dumps(tree, indent=1, allow_nan=False), encoding="utf-8")
    write_csv(files["results.csv"], study, scores)
    (out / "plots").mkdir(exist_ok=True)
    for plot in figures.all():
        name = f"plots/{plot.name}.png"
        files[name] = path_below(out, name, "plot")
        files[name].write_bytes(plot.png)
    return files
