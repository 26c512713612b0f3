"""The command's dealings with a work directory, in this process, with a folder as the store: no service is started."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli.export import export_images
from jobs.cli.report import print_report
from jobs.cli.run import run_study
from jobs.cli.status import status as status_of
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.load import load_study
from shared.config.stages import GenerateConfig
from shared.data.dataset import describe
from shared.data.imageset import ImageSet, write_shards
from shared.errors import ArtifactError, ConfigError, Stopped, UnavailableError
from shared.pipeline.local_session import STUDY_FILE, current_fingerprints, last_study, latest_workdir, local_session
from shared.pipeline.plan import Step, plan
from tests.support.committed import commit_steps
from tests.support.pixel_study import SCHEMA, pictures

DEMO = Path(__file__).parents[3] / "studies" / "demo.yaml"
TWO_SETS = (
    "experiments=[{name: real}, {name: a, images: real+synthetic, generate: {guidance: 1.0}, accept: {copies: 0.0}},"
    " {name: b, images: real+synthetic, generate: {guidance: 3.0}, accept: {copies: 0.0, plausibility: [0.5, 1.0]}}]"
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A fresh current directory, services that are named, and the signals given back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAILFILL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")  # no look at a study needs it
    monkeypatch.delenv("TAILFILL_CACHE", raising=False)
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def commit_all(*sets: str, files: Callable[[Step], dict[str, Path]] | None = None) -> None:
    """The whole study stands committed, its report with a page."""
    study = load_study(DEMO, sets)
    artifacts = Artifacts(FolderStore(Path("store")), study.name, Path("cache"))

    def report(step: Step) -> dict[str, Path]:
        if step.stage != "report":
            return files(step) if files else {}
        Path("index.html").write_text("<html>page</html>")
        Path("results.json").write_text('{"answer": 1}')
        return {"index.html": Path("index.html"), "results.json": Path("results.json")}

    commit_steps(study, plan(study), artifacts, report)


def run(*sets: str, as_json: bool = False) -> str:
    return run_study(DEMO, sets, None, None, (), "json", as_json)


def status(*sets: str, file: Path | None = None, why: str | None = None) -> str:
    return status_of(file, sets, None, why, False)


def test_a_run_with_all_committed_fetches_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    commit_all()
    page = Path(run())
    assert page == Path("work/demo/report/index.html")
    assert page.read_text() == "<html>page</html>"
    assert "0 stages run, 14 found committed" in capsys.readouterr().err
    assert json.loads(run(as_json=True))["report"] == str(page)
    assert print_report(None, False) == str(page)
    assert json.loads(print_report(Path("work/demo"), True)) == {"answer": 1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../../../home/x/.bashrc"),
        ("name", "/absolute/.bashrc"),
        ("name", "..\\..\\.bashrc"),
        ("name", "index.html\0"),
        ("digest", "../../y"),
    ],
)
def test_a_bucket_chooses_no_place_for_the_report(tmp_path: Path, field: str, value: str) -> None:
    """A manifest in the store that another wrote: `run` and `report` refuse it, and nothing is written outside of the work directory."""
    commit_all()
    run()
    (manifest,) = Path("store/demo/report").glob("*/manifest.json")
    tree = json.loads(manifest.read_bytes())
    tree["files"][0][field] = value.replace("/absolute", str(tmp_path / "absolute"))
    manifest.write_text(json.dumps(tree))
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "work")}
    for command in (run, lambda: print_report(None, False), lambda: status(file=DEMO)):
        with pytest.raises(ArtifactError, match=rf"manifest\.json: not a manifest .*files\.0\.{field}") as caught:
            command()
        assert caught.value.exit_code == 2
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "work")} == before


def test_a_link_in_the_report_is_not_followed(tmp_path: Path) -> None:
    commit_all()
    (tmp_path / "outside").write_text("mine")
    Path("work/demo/report").mkdir(parents=True)
    Path("work/demo/report/index.html").symlink_to(tmp_path / "outside")
    with pytest.raises(ArtifactError, match="a link that leaves the folder"):
        run()
    assert (tmp_path / "outside").read_text() == "mine"


def test_status_names_a_stage_that_is_running() -> None:
    commit_all()
    run()
    rows = json.loads(status_of(None, ["finetune.steps=9"], None, None, True))
    ready = next(row for row in rows if row["step"] == "finetune")
    assert ready["state"] == "ready"
    task = Path("work/demo/tasks").resolve() / f"finetune-{ready['key'][:16]}.json"
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "--config", str(task)])
    try:
        states = {
            row["step"]: row["state"] for row in json.loads(status_of(None, ["finetune.steps=9"], None, None, True))
        }
    finally:
        process.kill()
        process.wait()
    assert (states["finetune"], states["generate"], states["prepare"]) == ("running", "waiting", "committed")


def test_status_of_the_last_study_and_of_a_changed_one() -> None:
    commit_all()
    run()
    assert "14 of 14 stages committed" in status()
    assert "1 of 14 stages committed" in status("finetune.steps=9", "search.epochs=9")
    assert status("finetune.steps=9", why="finetune").endswith("in finetune.steps 600 → 9")
    assert status("final.seeds=1", file=DEMO).splitlines()[-1].startswith("10 of 11 stages committed")
    assert "14 of 14" in status()  # asking changed nothing
    said = json.loads(status_of(None, ("finetune.steps=9",), None, "finetune", True))
    assert [line.split(" in ")[1] for line in said["why"]] == ["finetune.steps 600 → 9"]


def test_status_of_changed_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.png").write_bytes(b"1")
    sets = ["dataset={source: folder, resolution: 32}", f"dataset.root={data}"]
    study = load_study(DEMO, sets)
    artifacts = Artifacts(FolderStore(Path("store")), study.name, Path("cache"))
    found = current_fingerprints(study, Path("work/demo"))
    commit_steps(study, plan(study, found.source)[:1], artifacts)
    assert "committed under" in status(*sets, file=DEMO, why="prepare")
    (data / "b.png").write_bytes(b"2")
    assert "differs from" in status(*sets, file=DEMO, why="prepare")
    assert "in source_digest" in status(*sets, file=DEMO, why="prepare")


def test_a_study_that_was_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for ask in (status, lambda: print_report(None, False)):
        with pytest.raises(ConfigError, match="work: holds no study that was run; name one with --workdir"):
            ask()
    assert "0 of 14 stages committed" in status(file=DEMO)  # the store that is named may hold it
    monkeypatch.delenv("TAILFILL_STORE")
    with pytest.raises(ConfigError, match="work/demo: holds no study that was run"):
        status(file=DEMO)
    assert not Path("work/demo/s3").exists()


def test_a_report_that_is_not_there_yet() -> None:
    commit_all()
    run()
    (Path("store/demo/report").rename("gone"))
    with pytest.raises(ConfigError, match="its report is not committed; `tailfill run` goes on"):
        print_report(None, False)


def test_a_damaged_work_directory() -> None:
    folder = Path("work/demo")
    folder.mkdir(parents=True)
    for text in ("", "[]", '{"study": {}}'):
        (folder / STUDY_FILE).write_text(text)
        with pytest.raises(ConfigError):
            status()


def test_the_work_directory_used_last_is_asked() -> None:
    commit_all()
    run()
    run_study(DEMO, (), Path("work/other"), None, (), "json", False)
    assert latest_workdir(None) == Path("work/other")


def test_a_bucket_needs_a_store_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TAILFILL_STORE")
    for setting in ("classifier.pretrained=s3://b/w", "dataset={source: folder, root: s3://b/d, resolution: 32}"):
        with pytest.raises(ConfigError, match=r"s3://b/. is in a bucket, but no store is named"):
            run(setting)


def test_a_work_directory_inside_of_the_data(tmp_path: Path) -> None:
    sets = [f"dataset={{source: folder, root: {tmp_path}}}"]
    with pytest.raises(ConfigError, match=r"work/demo: lies inside of the data, .*; name a work directory elsewhere"):
        run_study(DEMO, sets, None, None, [], "text", False)
    assert not Path("work").exists()


def test_an_unknown_stage_to_rerun() -> None:
    with pytest.raises(ConfigError, match="--rerun train: there is no such stage"):
        run_study(DEMO, (), None, None, ("train",), "json", False)


def test_a_second_command_is_kept_out_and_may_look(tmp_path: Path) -> None:
    commit_all()
    run()
    study, found = last_study(Path("work/demo"))
    with local_session(study, found, Path("work/demo")):
        with pytest.raises(UnavailableError, match="uses this work directory"):
            run()
        assert "14 of 14 stages committed" in status()


def test_a_signal_before_the_first_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    load = load_study

    def load_and_stop(*arguments: object) -> object:
        signal.raise_signal(signal.SIGTERM)
        return load(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("jobs.cli.run.load_study", load_and_stop)
    with pytest.raises(Stopped):
        run()


def guidance_of(step: Step) -> float:
    assert isinstance(step.config, GenerateConfig)
    return step.config.generate.guidance


def image_files(step: Step) -> dict[str, Path]:
    """Three images a set; the sets differ in their guidance, and their scores in the plausibility."""
    folder = Path(f"files/{step.id[:16]}")
    folder.mkdir(parents=True)
    images = pictures(1, 2)
    if step.stage == "prepare":
        info = describe("test", SCHEMA, 16, images.labels, images.split)
        (folder / "dataset.json").write_text(info.model_dump_json(by_alias=True))
        return {path.name: path for path in (folder / "dataset.json", *write_shards(images, folder, "images"))}
    if step.stage == "generate":
        extra = pa.table({"pool": pa.array([0, 0, 0], pa.int32()), "guidance": [guidance_of(step)] * 3})
        made = ImageSet(SCHEMA, images.encoded, images.paths, np.full(3, "generated"), images.labels, extra)
        return {path.name: path for path in write_shards(made, folder, "images")}
    if step.stage == "score":
        guidance = guidance_of(step.needs["generate"])
        table = pa.table(
            {"index": [0, 1, 2], "plausibility": [guidance / 10, 0.6, 0.7], "neighbour_ratio": [1.0, 1.0, 1.0]}
        )
        pq.write_table(table, folder / "scores.parquet")
        return {"scores.parquet": folder / "scores.parquet"}
    return {}


def exported(experiment: str | None) -> list[dict[str, object]]:
    out = Path(f"out-{experiment}")
    export_images("generated", out, experiment, None)
    return [json.loads(line) for line in (out / "metadata.jsonl").read_text().splitlines()]


def test_each_experiment_s_images_with_their_own_scores_and_filter() -> None:
    commit_all(TWO_SETS, files=image_files)
    run(TWO_SETS)
    first, second = exported("a"), exported("b")
    assert [row["guidance"] for row in (*first, *second)] == [1.0] * 3 + [3.0] * 3
    assert [row["plausibility"] for row in (*first, *second)] == [0.1, 0.6, 0.7, 0.3, 0.6, 0.7]
    assert [row["accepted"] for row in (*first, *second)] == [False, True, True, False, True, True]
    with pytest.raises(ConfigError, match=r"has 2 sets of generated images .*--experiment NAME: a, b"):
        exported(None)
    with pytest.raises(ConfigError, match=r"--experiment real: has no generated images; experiments that have: a, b"):
        exported("real")
    with pytest.raises(ConfigError, match="the data set is one for all"):
        export_images("dataset", Path("out"), "a", None)
    assert export_images("dataset", Path("out"), None, None) == "3 images in out"


def test_one_set_needs_no_name() -> None:
    commit_all(files=image_files)
    run()
    assert exported(None) == exported("placebo")


def test_a_study_without_generated_images() -> None:
    commit_all("experiments=[{name: real}]")
    run("experiments=[{name: real}]")
    with pytest.raises(ConfigError, match="no experiment has generated images"):
        exported(None)
