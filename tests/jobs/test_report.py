"""Tests the report from committed results to the page, which headless Chromium opens."""

from __future__ import annotations

import csv
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import report as job
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.dataset import Rare
from shared.config.generation import Accept
from shared.config.prices import Prices
from shared.config.search import Verdict
from shared.config.task import Input, Task
from shared.context import Context
from shared.data.accept import accept_mask
from shared.data.imageset import read_shards
from shared.data.review import image_ids
from shared.errors import DataError, Stopped
from shared.metrics.table import COLUMNS, METRICS, Metric
from shared.report.answer import find_answer, interval_text, points
from shared.report.charts import forest
from shared.report.inputs import StageResult, StudyInputs, read_study
from shared.report.money import amount_text
from shared.report.scores import StudyScores, judge, score_study
from shared.settings import Settings
from shared.stop import StopSignal
from tests.support.browser import check_page
from tests.support.report_study import MULTI_LABEL, StudyMaker, report_config, three_arms


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns the report of a study of three arms with eight seeds each."""
    folder = tmp_path_factory.mktemp("full")
    config, results = three_arms(folder / "in", seeds=8, gain=0.9, manual_images="all")
    return job.report(config, results, folder)


@pytest.fixture(scope="module")
def full_tree(full: dict[str, Path]) -> dict[str, Any]:
    """Returns the results.json of that report."""
    tree: dict[str, Any] = json.loads(full["results.json"].read_text())
    return tree


def test_the_verdict_of_a_clear_gain(full_tree: dict[str, Any]) -> None:
    (verdict,) = full_tree["verdict"]["arms"]
    assert (verdict["arm"], verdict["outcome"]) == ("synthetic", "images help")
    assert re.match(
        r"Generated images help on this training set: rare macro-F1 \+\d+\.\d points against real images \(95 % interval .*, 8 repetitions\), "
        r"and \+\d+\.\d points against the placebo, copies of real images \(.*\); together p = 0\.\d+\.$",
        full_tree["answer"]["sentence"],
    )
    assert full_tree["answer"]["warning"] is None
    (placebo,) = verdict["against_placebos"]
    assert (placebo["arm"], placebo["baseline"], placebo["finding"]) == ("synthetic", "placebo", "better")
    assert verdict["p"] == verdict["p_images"] == max(verdict["against_baseline"]["p"], placebo["p"])
    assert [(c["arm"], c["finding"]) for c in full_tree["verdict"]["readings"]] == [("placebo", "no difference found")]
    against = verdict["against_baseline"]
    assert against["test_units"] == 400
    low, high = against["interval"]
    assert (low + high) / 2 == pytest.approx(against["difference"]) == pytest.approx(np.mean(against["differences"]))
    variances = {name: sd**2 for name, sd in against["components"].items()}
    if min(variances.values()) > 0:
        error = variances["repetition"] / 8 + variances["unit"] / 400 + variances["rest"] / 3200
        assert against["standard_error"] ** 2 == pytest.approx(error)


def test_results_json_is_as_documented(full_tree: dict[str, Any]) -> None:
    """The list of keys in docs/statistics.md, and no other; schema counts what changed."""
    text = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text()
    lists = text[text.index("## results.json") :]
    for where, found in (
        ("top level", full_tree),
        ("`verdict`", full_tree["verdict"]),
        ("`arms`", full_tree["verdict"]["arms"][0]),
        ("comparison", full_tree["verdict"]["arms"][0]["against_baseline"]),
        ("`recommended`", full_tree["recommended"]),
        ("`next_steps`", full_tree["next_steps"][0]),
        ("`classes`", full_tree["classes"]),
        ("`readings`", full_tree["classes"]["readings"]["pattern/solid"]),
        ("estimate", full_tree["classes"]["readings"]["pattern/solid"]["f1"]["real"]),
    ):
        (row,) = [line for line in lists.splitlines() if line.startswith(f"| {where}")]
        assert set(re.findall(r"`(\w+)`", row.split("|")[2])) == set(found), where
    assert full_tree["schema"] == 6


def test_groups_of_images_are_the_test_units(tmp_path: Path) -> None:
    """Ten images of each product: as many values, and a tenth as many units, whose counts may be too few to judge by."""
    found = []
    for grouped in (False, True):
        maker = StudyMaker(tmp_path / str(grouped), train=120, test=400)
        for name in ("real", "other"):
            for repeat in range(6):
                maker.final(name, "real", repeat, 2.0, 2.0, ())
                if grouped:
                    path = maker.results[f"final/{name}/{repeat}"].files["predictions.parquet"]
                    table = pq.read_table(path)
                    pq.write_table(table.append_column("unit", pa.array([f"p{i // 10}" for i in range(400)])), path)
        study = read_study(report_config([("real", "real"), ("other", "real")]), maker.results)
        judged = judge(Verdict(metric="accuracy"), study.config.experiments, score_study(study))
        found.append(judged.others[0])
    alone, joined = found
    assert alone.table is not None
    assert joined.table is not None
    assert (alone.table.units, joined.table.units) == (400, 40)
    assert joined.difference == alone.difference == pytest.approx(joined.table.mean)
    assert joined.table.of_repetitions == pytest.approx(alone.table.of_repetitions / 10)
    scores = score_study(study)
    assert scores.unit_counts().max() <= 40


def test_the_table_is_a_row_a_training(full: dict[str, Path], full_tree: dict[str, Any]) -> None:
    with full["results.csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["experiment"], r["repeat"]) for r in rows[:9]] == [("real", str(i)) for i in range(8)] + [
        ("synthetic", "0")
    ]
    real = next(e for e in full_tree["experiments"] if e["name"] == "real")
    assert np.mean([float(r["accuracy"]) for r in rows[:8]]) == pytest.approx(real["metrics"]["accuracy"]["mean"])
    # the values that the searches of the repetitions found, not the default
    assert [float(row["lr"]) for row in rows[:4]] == pytest.approx([0.0025, 0.00125, 0.0025 / 3, 0.0025])
    assert [real["parameters"][str(repeat)]["lr"] for repeat in range(4)] == [float(row["lr"]) for row in rows[:4]]
    table = rows_of(full["index.html"].read_text(), "results", "Results of each experiment")
    assert table[1][table[0].index("lr")] == "0.0008333 to 0.0025"
    assert table[1][table[0].index("dropout")] == "0.3"
    assert real["paper"]["test_accuracy"] == 0.6728


def cells_of(page: str, section: str, label: str) -> list[list[str]]:
    """Returns the HTML of the cells of a table of the page, row by row."""
    part = page[page.index(f'<section id="{section}">') :]
    table = part[part.index(f'aria-label="{label}"') :].partition("</table>")[0]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in table.split("<tr")[1:]]


def rows_of(page: str, section: str, label: str) -> list[list[str]]:
    """Returns the cells of a table of the page, row by row, without the deviations."""
    return [[re.sub(r"<span.*", "", cell) for cell in row] for row in cells_of(page, section, label)]


def texts_of(page: str, section: str, label: str) -> list[list[str]]:
    """Returns all text of the cells of a table of the page, row by row."""
    return [[re.sub(r"<[^>]*>", "", cell) for cell in row] for row in cells_of(page, section, label)]


def test_every_metric_has_its_place(full: dict[str, Path], full_tree: dict[str, Any]) -> None:
    page, real = full["index.html"].read_text(), full_tree["experiments"][0]
    tables = {
        "results": rows_of(page, "results", "Results of each experiment"),
        "calibration": rows_of(page, "calibration", "Calibration of each experiment"),
    }
    assert {len(row) for row in tables["results"]} == {len(tables["results"][0])}
    shown = {(place, head): cell for place, rows in tables.items() for head, cell in zip(rows[0], rows[1], strict=True)}
    assert tables["results"][-1][0] == "most frequent class only"
    shown["reference", "majority<br>accuracy"] = tables["results"][-1][tables["results"][0].index("test<br>accuracy")]
    for metric in METRICS:
        mean = real["metrics"][metric.name]["mean"]
        assert set(real["by_repeat"]["0"]) == set(real["metrics"]) == {metric.name for metric in METRICS}
        text = f"{mean:.3f}" if metric.format == "loss" else f"{100 * mean:.1f}"
        if metric.place != "files":
            assert shown[metric.place, "<br>".join(metric.heading_lines)] == text
        if metric.of_generated:
            assert f"Trained on generated images alone, {metric.of_generated} on real ones" in page
    with full["results.csv"].open() as file:
        assert next(csv.reader(file))[-len(COLUMNS) :] == [metric.name for metric in COLUMNS]


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyInputs, StudyScores]:
    """Returns a study of a baseline and an arm that is better at all classes."""
    maker = StudyMaker(tmp_path_factory.mktemp("better"), train=120, test=80)
    for name, skill in (("real", 2.0), ("better", 4.0)):
        for repeat in range(6):
            maker.final(name, "real", repeat, skill, skill, ())
    study = read_study(report_config([("real", "real"), ("better", "real")]), maker.results)
    return study, score_study(study)


@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric.verdict], ids=lambda metric: metric.name)
def test_a_verdict_may_rest_on_it(better: tuple[StudyInputs, StudyScores], metric: Metric) -> None:
    study, scores = better
    rule = Verdict.model_validate({"metric": metric.name})
    generated = [
        e.model_copy(update={"images": "real+synthetic"} if e.name == "better" else {})
        for e in study.config.experiments
    ]
    judged = judge(rule, tuple(generated), scores)
    (verdict,) = judged.verdicts
    found = verdict.against_baseline
    assert verdict.outcome == "recipe helps"
    assert found.interval is not None
    assert found.interval[0] > 0
    real, other = (scores.spread(name, metric.name).mean for name in ("real", "better"))
    assert found.difference == pytest.approx((other or 0.0) - (real or 0.0))
    config = study.config.model_copy(update={"experiments": tuple(generated)})
    assert f"helps on this training set: {metric.label} +" in find_answer(config, judged).sentence
    judged_classes = {few.name for few in judged.few}
    assert ("pattern/lattice" in judged_classes) == metric.by_class  # 80 test images, about one of them of this class
    drawn = forest(judged.with_baseline, {"real": "Real", "better": "Better"}, {"better": 1}, 0.05)
    assert f"{metric.label}, points against Real" in drawn.svg


def test_generated_images_and_costs_are_counted(full_tree: dict[str, Any]) -> None:
    (generated,) = full_tree["generated"]
    assert generated["used_by"] == ["synthetic", "placebo"]
    assert 0 < generated["accepted"] < generated["images"]
    assert sum(c["accepted"] for c in generated["classes"]) == generated["accepted"]
    cost = {c["stage"]: c for c in full_tree["cost"]}
    assert (cost["final"]["results"], cost["generate"]["results"]) == (24, 2)
    assert cost["prepare"]["gpu_seconds"] == 0
    assert cost["prepare"]["cpu_seconds"] == cost["prepare"]["wall_seconds"] > 0
    assert all(caution.startswith("Few test images:") for caution in full_tree["answer"]["cautions"])
    assert (
        len(full_tree["lineage"]) == 35
    )  # prepare; the judges; finetune, generate, score of two pools; 3 tunes, 24 finals


def test_what_a_person_decided_is_counted(tmp_path: Path) -> None:
    config, results = three_arms(tmp_path / "in", seeds=2, train=120, test=80)
    made = results["generate/synthetic/0"]
    ids = image_ids(read_shards(made.shards("images"), StudyMaker(tmp_path / "other").schema))
    scores = pq.read_table(results["score/synthetic/0"].files["scores.parquet"])
    accepted = accept_mask(Accept(), scores).tolist()
    good, bad = accepted.index(True), accepted.index(False)
    (tmp_path / "reviewed.csv").write_text(f"image,decision\n{ids[good]},reject\n{ids[bad]},keep\n")
    plain = job.report(config, results, _folder(tmp_path / "plain"))
    for role, result in results.items():
        if role.startswith(("final/synthetic", "final/placebo")):
            arm = {
                **result.manifest.config["arm"],
                "accept": Accept(reviewed="sha256:" + "0" * 64).model_dump(mode="json"),
            }
            manifest = result.manifest.model_copy(update={"config": {**result.manifest.config, "arm": arm}})
            results[role] = StageResult(manifest, {**result.files, "reviewed.csv": tmp_path / "reviewed.csv"})
    files = job.report(config, results, _folder(tmp_path / "out"))
    (generated,) = json.loads(files["results.json"].read_text())["generated"]
    assert generated["person"] == {"kept": 1, "rejected": 1, "let_in": 1, "taken_out": 1, "leaks": 0}
    assert generated["accepted"] == sum(accepted)
    assert (
        "A person reviewed 2 of those of the first pool. Rejected: 1, of which 1 would have"
        in files["index.html"].read_text()
    )
    assert "person" not in json.loads(plain["results.json"].read_text())["generated"][0]
    assert "A person reviewed" not in plain["index.html"].read_text()


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_arms_that_were_not_tuned_alike_are_warned_of_at_the_top(tmp_path: Path) -> None:
    maker = StudyMaker(tmp_path / "in", train=120, test=80)
    spent = "search.budget.gpu_hours of 2.5 are spent"
    maker.tune("real", 15, budget={"gpu_hours": 2.5})
    maker.tune("other", 4, spent, {"gpu_hours": 2.5})
    for name in ("real", "other", "heir", "rival"):  # the last one is a reading, which may be tuned otherwise
        maker.final(name, "real", 0, 2.0, 2.0, ())
    config = report_config(
        [("real", "real"), ("other", "real+synthetic"), ("heir", "real+synthetic"), ("rival", "real")]
    )
    heir = config.experiments[2].model_copy(update={"parameters_from": "real"})  # as many trials stand behind it
    config = config.model_copy(update={"experiments": (*config.experiments[:2], heir, config.experiments[3])})
    files = job.report(config, maker.results, tmp_path)
    tree = json.loads(files["results.json"].read_text())
    assert tree["answer"]["cautions"][0].startswith(
        f"Not tuned alike: finished trials behind the arms are “real” 15, “other” 4 ({spent}), “heir” 15."
    )
    assert (tree["searches"]["other"]["ended"], tree["budget_gpu_hours"]) == (spent, [2.5])
    text = files["index.html"].read_text()
    assert f"The search of “other” ended early, after 4 finished trials: {spent}." in text
    assert "<strong>Not tuned alike:</strong>" in text
    assert "2.5 GPU" in text


def test_on_a_cpu_no_gpu_hours_are_claimed(tmp_path: Path) -> None:
    maker = StudyMaker(tmp_path / "in", train=120, test=80)
    maker.final("real", "real", 0, 2.0, 2.0, ())
    for role, found in maker.results.items():
        run = found.manifest.run.model_copy(
            update={"device": "cpu", "device_seconds": 0.0, "cpu_seconds": 720.0, "cpu_lost_seconds": 36.0}
        )
        maker.results[role] = StageResult(found.manifest.model_copy(update={"run": run}), found.files)
    text = job.report(report_config([("real", "real")]), maker.results, tmp_path)["index.html"].read_text()
    cost = text[text.index('<section id="cost">') : text.index('<section id="lineage">')]
    assert "0.20 CPU" in cost
    assert "0.01 CPU" in cost
    assert "GPU" not in cost.partition("<caption>")[0]


def test_costs_are_in_money_if_the_study_has_prices(tmp_path: Path) -> None:
    maker = StudyMaker(tmp_path / "in", train=120, test=80)
    maker.final("real", "real", 0, 2.0, 2.0, ())
    config = report_config([("real", "real")])
    for prices, total in (
        (None, None),
        (Prices(currency="EUR", per_hour={"h100": 2.0}), 2.0),
        (Prices(currency="EUR", per_hour={"A100": 2.0}), 0),
    ):
        files = job.report(config.model_copy(update={"prices": prices}), maker.results, tmp_path)
        tree, text = json.loads(files["results.json"].read_text()), files["index.html"].read_text()
        cost = text[text.index('<section id="cost">') : text.index('<section id="lineage">')]
        if total is None:
            assert tree["money"] is None
            assert "EUR" not in text
            continue
        expected = total * maker.results["final/real/0"].manifest.run.device_seconds / 3600
        assert tree["money"]["total"] == pytest.approx(expected)
        assert tree["money"]["by_stage"]["final"] == pytest.approx(expected)
        assert f"<td><b>{amount_text(expected)}</b></td>" in cost
        assert f"<dd>{amount_text(expected).replace('<', '&lt;')} EUR<small>" in text
        assert ("2 EUR per hour of NVIDIA H100." in cost) == bool(total)
        assert ("without GPUs that have no price" in text) != bool(total)
        assert ("hours of NVIDIA H100" in cost) != bool(total)


def test_the_page_says_what_to_do_and_where_the_gain_is(full: dict[str, Path], full_tree: dict[str, Any]) -> None:
    text = full["index.html"].read_text()
    steps = text[text.index('<section id="next">') : text.index('<section id="verdict">')]
    assert [html.unescape(t) for t in re.findall(r"<h3>(.*?)</h3>", steps)] == [
        s["title"] for s in full_tree["next_steps"]
    ]
    chosen = full_tree["recommended"]
    assert (chosen["experiment"], chosen["among"]) == ("synthetic", 8)
    assert f"Use the model of “synthetic”, repetition {chosen['repeat']}." in steps
    assert "tailfill predict IMAGES --experiment synthetic\ntailfill export model DIR --experiment synthetic" in steps
    classes = full_tree["classes"]
    assert (classes["confidence"], classes["baseline"]) == (0.95, "real")
    row = texts_of(text, "classes", "Gain of each class")
    judged = [name for name, reading in classes["readings"].items() if reading["judged"]]
    assert row[1] == ["Classes that the verdict counts"]
    assert [cells[0].removesuffix(" †") for cells in row[2 : 2 + len(judged)]] == judged
    reading, cells = classes["readings"][judged[0]], row[2]
    assert cells[1:3] == [str(reading["train_images"]), str(reading["test_images"])]
    gain = reading["gain"]["synthetic"]
    assert cells[3] == f"{points(gain['mean'])}{interval_text(gain['interval'])}"
    worst = texts_of(text, "classes", "Worst class of each arm")
    found = classes["worst"]["synthetic"]
    assert worst[-2][2].startswith(f"{found['class']['name']} {100 * found['class']['score']['mean']:.1f}")
    assert worst[-1][2].startswith(f"{found['group']['name']} {100 * found['group']['score']['mean']:.1f}")
    assert full["plots/class-gains.png"].read_bytes().startswith(b"\x89PNG")


class Page(HTMLParser):
    """Collects the references of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "xlink:href", "action") and value]
        self.ids += [value for key, value in attrs if key == "id" and value]
        if tag == "img":
            self.images.append(named)


def test_the_page_holds_everything_in_itself(full: dict[str, Path]) -> None:
    text = full["index.html"].read_text()
    page = Page()
    page.feed(text)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert len(page.ids) == len(set(page.ids))
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
    assert page.images
    assert all(image["alt"] for image in page.images)
    assert "@import" not in text
    for heading in (
        "Verdict",
        "Results on the test split",
        "Training curves",
        "Calibration",
        "Hyperparameter search",
        "Lineage",
    ):
        assert f"<h2>{heading}</h2>" in text
    assert "paper, row 14" in text
    assert full["plots/class-distribution.png"].read_bytes().startswith(b"\x89PNG")


FIGURE = re.compile(r"The paper's Figure ([^<]+?)\.</strong>")


def test_a_study_with_paper_rows_names_the_papers_figures_and_sets_its_rows_beside_ours(full: dict[str, Path]) -> None:
    page = full["index.html"].read_text()
    sections = {name: rest for name, _, rest in (s.partition('">') for s in page.split('<section id="')[1:])}
    named = {name: FIGURE.findall(section) for name, section in sections.items() if FIGURE.search(section)}
    assert named == {"data": ["3"], "images": ["4, left", "4, right"], "training": ["5"]}
    ours, papers = rows_of(page, "results", "Results of each experiment")[1:3]
    assert papers[:5] == ["paper, row 11", "real", "hard", "0.765", "67.28"]
    assert papers[-7:] == ["256", "0.003032", "0.00273", "0.000437", "0.266", "0.9", "0.999"]
    assert len(ours) == len(papers)
    assert ours[-7:-5] == ["256", "0.0008333 to 0.0025"]
    assert "Its losses are taken for weighted means over the label groups" in sections["results"]
    curves = re.findall(r'aria-label="(Training curves of [^"]+)"', sections["training"])
    assert len(curves) == 3
    assert all(re.search(r"accuracy: training 0\.9\d\d, validation 0\.7\d\d;", said) for said in curves)


def test_a_study_without_paper_rows_names_nothing_of_the_paper(tmp_path: Path) -> None:
    maker = StudyMaker(tmp_path / "in", train=120, test=80, manual_images="rare")
    maker.generate("synthetic", ("neckline/square", "fabric/faux"), each=4, pools=1)
    maker.final("real", "real", 0, 2.0, 2.0, ())
    maker.final("synthetic", "real+synthetic", 0, 2.0, 2.0, ())
    config = report_config([("real", "real"), ("synthetic", "real+synthetic")])
    page = job.report(config, maker.results, tmp_path)["index.html"].read_text()
    text = re.sub(r"<(style|svg).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert "paper" not in text.lower()
    assert "copies of the images of rare classes are added to the training images of real, synthetic." in text


def test_arms_that_copy_other_images_are_shown_apart(tmp_path: Path) -> None:
    maker = StudyMaker(tmp_path / "in", train=120, test=80, manual_images="rare")
    maker.final("real", "real", 0, 2.0, 2.0, ())
    maker.manual_images = "all"
    maker.final("more", "real", 0, 2.0, 2.0, ())
    page = job.report(report_config([("real", "real"), ("more", "real")]), maker.results, tmp_path)[
        "index.html"
    ].read_text()
    assert "copies of the images of rare classes are added to the training images of real." in page
    assert "copies of all images are added to the training images of more." in page


def test_no_manual_images_are_shown_if_no_arm_trains_on_them(tmp_path: Path) -> None:
    maker = StudyMaker(tmp_path / "in", train=120, test=80)
    maker.final("real", "real", 0, 2.0, 2.0, ())
    config = report_config([("real", "real")], real=1)
    page = job.report(config, maker.results, tmp_path)["index.html"].read_text()
    assert FIGURE.findall(page) == ["3", "5"]
    assert "pairs" not in page.partition("</style>")[2]


def test_few_seeds_are_said_at_the_top_and_equal_inputs_give_equal_numbers(tmp_path: Path) -> None:
    config, results = three_arms(tmp_path / "in", seeds=2, test=120)
    files = job.report(config, results, tmp_path)
    text, tree = files["index.html"].read_text(), json.loads(files["results.json"].read_text())
    top = text[: text.index("<nav")]
    assert "Not a verdict:" in top
    assert "at least 6" in top
    assert "Few test images:" in top
    assert "cannot be judged yet" in top
    assert json.loads(job.report(config, results, tmp_path)["results.json"].read_text()) == tree


def test_arms_that_recognise_no_rare_class_are_not_compared(tmp_path: Path) -> None:
    maker = StudyMaker(tmp_path / "in", train=120, test=80)
    counts = (maker.labels[: maker.train] == 1).sum(axis=0)
    rare = tuple(name for name, n in zip(maker.schema.class_names, counts, strict=True) if 0 < n < 40)
    for name in ("real", "other"):
        for repeat in range(2):
            maker.final(name, "real", repeat, 3.0, -60.0, rare)
    files = job.report(report_config([("real", "real"), ("other", "real+synthetic")]), maker.results, tmp_path)
    tree, text = json.loads(files["results.json"].read_text()), files["index.html"].read_text()
    assert {e["metrics"]["rare_macro_f1"]["mean"] for e in tree["experiments"]} == {0.0}
    assert tree["answer"]["sentence"].startswith(
        "No arm recognises the rare classes at all: rare macro-F1 is 0 in every"
    )
    assert re.sub("</?span>", "", text).count(tree["answer"]["sentence"]) == 3  # description, top, verdict
    maker.final("real", "real", 1, 3.0, 3.0, ())
    tree = json.loads(
        job.report(report_config([("real", "real"), ("other", "real+synthetic")]), maker.results, tmp_path)[
            "results.json"
        ].read_text()
    )
    # one training that recognises some is enough for a comparison
    assert "cannot be judged yet" in tree["answer"]["sentence"]


def test_each_row_of_pictures_says_whether_its_images_were_accepted(tmp_path: Path) -> None:
    maker = StudyMaker(tmp_path / "in", train=120, test=80)
    maker.generate("synthetic", ("neckline/square", "fabric/faux"), each=4, pools=1)
    path = maker.results["score/synthetic/0"].files["scores.parquet"]
    scores = pq.read_table(path)
    plausibility = pa.array([0.01] * 4 + [0.5] * 4, pa.float32())  # the study accepts plausibilities from 0.2 to 0.95
    pq.write_table(scores.set_column(scores.schema.get_field_index("plausibility"), "plausibility", plausibility), path)
    maker.final("real", "real", 0, 2.0, 2.0, ())
    maker.final("synthetic", "real+synthetic", 0, 2.0, 2.0, ())
    config = report_config([("real", "real"), ("synthetic", "real+synthetic")])
    config = config.model_copy(update={"rare": Rare(below=None, classes=("neckline/square", "fabric/faux"))})
    text = job.report(config, maker.results, tmp_path)["index.html"].read_text()
    section = text[text.index('<section id="images">') : text.index('<section id="training">')]
    rows = dict(re.findall(r"<h3>(.*?)</h3>(.*?)(?=<h3>|$)", section, re.DOTALL))
    said = {name: re.findall(r"<h4>(.*?)</h4>", row) for name, row in rows.items()}
    assert said == {
        "neckline/square": ["real", "generated, refused"],
        "fabric/faux": ["real", "generated, accepted"],
    }


def test_several_labels_unknown_ones_and_no_rare_class(tmp_path: Path) -> None:
    maker = StudyMaker(tmp_path / "in", schema=MULTI_LABEL, train=120, test=80)
    for name in ("real", "other"):
        maker.final(name, "real", 0, 2.0, 2.0, ())
    config = report_config([("real", "real"), ("other", "real")], rare=Rare(below=None))
    files = job.report(config, maker.results, tmp_path)
    tree = json.loads(files["results.json"].read_text())
    assert tree["rare"] == []
    assert tree["verdict"]["readings"][0]["difference"] is None
    assert "have no paired repetition" in tree["answer"]["readings"][0]
    assert "any number" in files["index.html"].read_text()


def test_a_search_for_several_objectives_shows_its_front(tmp_path: Path) -> None:
    maker = StudyMaker(tmp_path / "in", train=100, test=50)
    towards = {"val_macro_f1": "maximize", "val_loss": "minimize", "val_accuracy": "maximize"}
    values = [[0.5, 1.0, 0.7], [0.62, 1.2, 0.6], [0.6, 0.9, 0.65], [0.4, 0.95, 0.6]]
    maker.tune_for("two", dict(list(towards.items())[:2]), [v[:2] for v in values], front=[1, 2])
    maker.tune_for("three", towards, values, front=[1, 2, 0])
    config = report_config([("two", "real"), ("three", "real")]).model_copy(update={"verdict": "none"})
    files = job.report(config, maker.results, tmp_path)
    text = files["index.html"].read_text()
    assert "2 on the Pareto front of val_macro_f1, val_loss, of which the best in val_macro_f1 was taken" in text
    assert "with val_macro_f1 0.62, val_loss 1.2 in trial 1:" in text
    assert "2 of them on the Pareto front; taken is trial 1 with 0.62 and 1.2." in text
    assert "best val macro f1 0.62" in text  # the history is that of the first objective
    fronts = sorted(name for name in files if "front" in name)
    assert fronts == [f"plots/front-{name}.png" for name in ("three-val_accuracy", "three-val_loss", "two-val_loss")]
    assert len(json.loads(files["results.json"].read_text())["search"]["three"]["front"]) == 3


def test_a_study_without_final_trainings_or_verdict(tmp_path: Path) -> None:
    maker = StudyMaker(tmp_path / "in", train=100, test=50)
    config = report_config([("real", "real")])
    text = job.report(config.model_copy(update={"verdict": "none"}), maker.results, tmp_path)["index.html"].read_text()
    assert "asks for no verdict" in text


def test_what_does_not_fit_together_is_an_error(tmp_path: Path) -> None:
    maker = StudyMaker(tmp_path / "in", train=100, test=50)
    maker.final("real", "real", 0, 2.0, 2.0, ())
    maker.final("real", "real", 1, 2.0, 2.0, ())
    config = report_config([("real", "real")])
    path = maker.results["final/real/1"].files["predictions.parquet"]
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(DataError, match=r"final/real/1: was tested on other images"):
        job.report(config, maker.results, tmp_path)
    pq.write_table(table.drop_columns(["p_fabric"]), path)
    with pytest.raises(DataError, match=r"final/real/1: predictions\.parquet has no column p_fabric"):
        job.report(config, maker.results, tmp_path)
    with pytest.raises(DataError, match="`prepare` is missing"):
        job.report(config, {}, tmp_path)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """Returns the context of a report on a small study, which is committed in a folder store."""
    maker = StudyMaker(tmp_path / "in", train=120, test=80)
    for repeat in range(2):
        for name in ("real", "other"):
            maker.final(name, "real", repeat, 2.0, 2.0, ())
    artifacts = Artifacts(FolderStore(tmp_path / "store"), "sample", tmp_path / "cache")
    inputs = {role: _committed(artifacts, result) for role, result in maker.results.items()}
    config = report_config([("real", "real"), ("other", "real+synthetic")], provisional=True)
    task = Task(study="sample", stage="report", key="k" * 64, config=config.model_dump(mode="json"), inputs=inputs)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Context(
        task=task, artifacts=artifacts, settings=Settings.from_environment({}), scratch=scratch, stop=StopSignal(),
        code=lambda: ("c0de", {}),
    )  # fmt: skip


def _committed(artifacts: Artifacts, result: StageResult) -> Input:
    files = tuple(artifacts.upload(name, path) for name, path in result.files.items())
    manifest = artifacts.commit(result.manifest.model_copy(update={"files": files}))
    return Input(stage=manifest.stage, key=manifest.key, digest=manifest.digest)


def test_run_reads_from_the_store_and_commits(context: Context) -> None:
    config = context.task.config
    manifest = job.run(config, context)  # type: ignore[arg-type]
    assert context.artifacts.find("report", "k" * 64) == manifest
    assert {"index.html", "results.json", "results.csv", "plots/verdicts.png"} <= {f.name for f in manifest.files}
    assert manifest.summary["outcomes"] == {"other": "too few repetitions"}
    assert "cannot be judged yet" in manifest.summary["answer"]
    assert "Not a verdict" in context.artifacts.fetch(manifest.file("index.html")).read_text()


def test_a_stopped_run_commits_nothing(context: Context) -> None:
    context.stop.set()
    with pytest.raises(Stopped):
        job.run(context.task.config, context)  # type: ignore[arg-type]
    assert context.artifacts.find("report", "k" * 64) is None


def test_the_page_fits_on_a_phone_and_on_paper(browser: Any, full: dict[str, Path]) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 900})
    page.goto(full["index.html"].as_uri())
    inside = "e => [...document.querySelectorAll(e)].filter(x => x.getBoundingClientRect().right > innerWidth).length"
    assert page.evaluate(inside, "#next *") == 0, "the steps are cut off"
    assert page.evaluate(inside, "figure.whole svg") == 0, "the gains are cut off"
    assert page.evaluate("document.querySelector('figure.whole svg').getBoundingClientRect().width") > 300
    page.set_viewport_size({"width": 680, "height": 960})  # 18 cm, A4 within its margins
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    wide = "[...document.querySelectorAll('table')].filter(t => t.offsetWidth > 1.2 * innerWidth).map(t => t.closest('section').id)"
    assert page.evaluate(wide) == []
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(browser: Any, full: dict[str, Path], width: int, scheme: str) -> None:
    check_page(browser, full["index.html"], width, scheme)
