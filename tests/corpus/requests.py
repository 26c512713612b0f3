"""Holds requests for final trainings as somebody may write them who may create ConfigMaps in a release's namespace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.folder import FolderStore
from shared.config.load import load_study
from shared.kube.mirror import LARGEST_DATA, _reduced
from shared.kube.requests import read_request
from shared.pipeline.final_tasks import final_tasks
from shared.pipeline.plan import plan
from shared.pipeline.session import Session
from shared.settings import Settings
from tests.corpus.case import PLANTED, Case
from tests.support.committed import commit_steps
from tests.support.small_study import SMALL_STUDY

STUDY = load_study(SMALL_STUDY, ["verdict=none"])
STEPS = plan(STUDY)
LABELS = {"app.kubernetes.io/instance": "study", "tailfill/request": "final"}


def _asked(labels: dict[str, str] | None = LABELS, **fields: Any) -> Callable[[Path], object]:
    """Returns an attempt to read a request, whose `data` have the study's name unless they say otherwise."""

    def attempt(_: Path) -> object:
        found: dict[str, Any] = {"metadata": {"name": "study-request-0", "uid": "1"}, **fields}
        if labels is not None:
            found["metadata"]["labels"] = labels
        return read_request(_reduced(found), "study", STUDY.name)

    return attempt


def _data(**data: str) -> Callable[[Path], object]:
    return _asked(data={"study": STUDY.name} | data)


def _trained(**data: str) -> Callable[[Path], object]:
    """Returns an attempt to find the trainings of a request, of whose study the data and the searches are committed."""

    def attempt(folder: Path) -> object:
        artifacts = Artifacts(FolderStore(folder / "store"), STUDY.name, folder / "cache")
        commit_steps(STUDY, [step for step in STEPS if step.stage == "prepare"], artifacts)
        environment = {"DATABASE_URL": f"postgresql://nobody:{PLANTED}@127.0.0.1:1/none"}
        session = Session(STUDY, STEPS, artifacts, Settings.from_environment(environment))
        given = {"study": STUDY.name, "experiment": "real", "params": '{"training.lr": 0.001}'} | data
        tasks = final_tasks(
            session, read_request({"metadata": {"name": "r", "labels": LABELS}, "data": given}, "study", STUDY.name)
        )
        return f"{len(tasks)} {tasks[0].experiment} {tasks[0].config.model_dump_json()}"

    return attempt


CASES = [
    Case("nothing but the study", _data(), 0, ("experiment=None", "seeds=None", "parameters=None")),
    Case("all fields", _data(experiment="real", seeds="2", params='{"training.lr": 1e-05}'), 0, ("'real'", "seeds=2", "1e-05")),
    Case("parameters as YAML", _data(params="training.lr: 0.5\n"), 0, ("{'training.lr': 0.5}",)),
    Case("parameters of best.json", _data(params='{"parameters": {"training.lr": 0.1}, "value": 1}'), 0, ("{'training.lr': 0.1}",)),
    Case("trainings of an experiment", _trained(seeds="3"), 0, ("3 real", '"training.lr":0.001')),
    Case("no labels", _asked(None, data={}), 2, ("app.kubernetes.io/instance is 'None'", "this release is study")),
    Case("a label of another release", _asked(LABELS | {"app.kubernetes.io/instance": "other"}), 2, ("'other'", "set the label to study")),
    Case("a label of another kind", _asked(LABELS | {"tailfill/request": "tune"}), 2, ("tailfill/request is 'tune'", "must be final or withdraw")),
    Case("no data", _asked(), 2, ("its study is 'None'", STUDY.name)),
    Case("data that are null", _asked(data=None), 2, ("its study is 'None'",)),
    Case("another study", _data(study="yesterday"), 2, ("its study is 'yesterday'", f"runs {STUDY.name}")),
    Case("a study in other letters", _data(study=STUDY.name.upper()), 2, (STUDY.name.upper(),)),
    Case("an unknown field", _data(wait="yes"), 2, ("no field 'wait'", "there are experiment, params, seeds, study")),
    Case("a field with a slip", _data(experimnt="real"), 2, ("no field 'experimnt'; did you mean experiment?",)),
    Case("a field with control characters", _data(**{"a\x1b[2J": "x"}), 2, ("\\x1b",), ("\x1b",)),
    Case("binary data", _asked(binaryData={"study": "c3R1ZHk="}), 2, ("has binaryData", "text only")),
    Case("a megabyte", _data(experiment="x" * (1 << 20)), 2, ("1,048,595", "bytes, which no request has")),
    Case("a megabyte of binary data", _asked(binaryData={"a": "A" * (1 << 20)}), 2, ("bytes, which no request has",)),
    Case("many fields", _data(**{f"f{number}": "x" * 100 for number in range(2000)}), 2, ("bytes, which no request has",)),
    Case("just under the bound", _data(experiment="x" * (LARGEST_DATA - 100)), 0),
    Case("no seeds", _data(seeds=""), 2, ("seeds must be a whole number from 1 to", "got ''")),
    Case("zero seeds", _data(seeds="0"), 2, ("from 1 to",)),
    Case("minus one seed", _data(seeds="-1"), 2, ("got '-1'",)),
    Case("seeds with a fraction", _data(seeds="1.5"), 2, ("got '1.5'",)),
    Case("seeds in other digits", _data(seeds="\u0663"), 2, ("whole number",)),
    Case("seeds with a line break", _data(seeds="2\n"), 2, ("whole number",)),
    Case("very many seeds", _data(seeds="9" * 5000), 2, ("whole number",)),
    Case("more seeds than a study may have", _data(seeds="10001"), 2, ("from 1 to 10000",)),
    Case("more trainings than a request may have", _trained(seeds="10000"), 2, ("10,000 trainings in all", "at most 1,000")),
    Case("an experiment that there is not", _trained(experiment="rael"), 2, ("there is no such experiment; did you mean real",)),
    Case("an experiment without a name", _trained(experiment=""), 2, ("there is no such experiment",)),
    Case("an experiment with control characters", _trained(experiment="\x1b[2J"), 2, ("there is no such experiment",), ("\x1b",)),
    Case("an experiment without images yet", _trained(experiment="synthetic"), 2, ("there is nothing to train on yet",)),
    Case("no parameters", _data(params=""), 2, ("study-request-0: params: must be a mapping",)),
    Case("parameters that are a list", _data(params="[1]"), 2, ("must be a mapping of paths",)),
    Case("parameters that are broken", _data(params='{"training.lr"'), 2, ("params: not valid YAML",)),
    Case("parameters that are deep", _data(params="[" * 30_000), 2, ("params: not valid YAML",)),
    Case("parameters that grow", _data(params="a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a, *a]\n" for n in range(40)) * 9), 2, ("params",)),
    Case("parameters with a Python object", _data(params="training.lr: !!python/object/apply:os.system [id]"), 2, ("not valid YAML",)),
    Case("a date as a parameter", _data(params="training.lr: 2026-01-31"), 2, ("'training.lr' must be a finite number",)),
    Case("an endless number as a parameter", _data(params="training.lr: .inf"), 2, ("'training.lr' must be a finite number",)),
    Case("no number as a parameter", _data(params="training.lr: .nan"), 2, ("must be a finite number",)),
    Case("a parameter that is too small", _trained(params='{"training.lr": -1}'), 2, ("training.lr",)),
    Case("a parameter of a wrong type", _trained(params='{"training.lr": "a lot"}'), 2, ("training.lr",)),
    Case("a mapping as a parameter", _trained(params='{"training.lr": {"a": 1}}'), 2, ("training.lr",)),
    Case("an unknown parameter", _trained(params='{"training.speed": 1}'), 2, ("training.speed",)),
    Case("a parameter that is no path", _trained(params='{"": 1}'), 2, ("'' is none; paths begin with",)),
    Case("a parameter of another section", _trained(params='{"dataset.root": "/etc"}'), 2, ("'dataset.root' is none; paths begin with accept",)),
    Case("an immense number as a parameter", _trained(params='{"training.lr": 1' + "0" * 200 + "}"), 2, ("params",)),
    Case("a database that does not answer", _trained(params="best"), 2, ("must be a mapping",)),
]  # fmt: skip
