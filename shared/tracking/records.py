"""Describes what a tracker logs as one run: a final training, a generator, a trial, a search, the report."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from shared.artifacts.artifacts import Artifacts
from shared.artifacts.manifest import Manifest
from shared.config.stages import TuneConfig
from shared.config.task import Task
from shared.pipeline.search_status import name_of_search

V = TypeVar("V")
Curve = list[tuple[int, float]]
"""Holds the values of a metric by epoch or step."""
IMAGES = 16
"""Counts the generated images that are shown of each pool."""
LARGEST_SHARD = 256 << 20  # bytes; a larger file of images is not fetched to show a few
PNG = b"\x89PNG"
"""Begins an image that is encoded as PNG; a larger one is a JPEG."""
DEEPEST = 12  # levels of a tree that are flattened


@dataclass(frozen=True)
class Committed:
    """Says that a step of the plan is committed."""

    label: str
    task: Task
    manifest: Manifest


@dataclass(frozen=True)
class TrialsEnded:
    """Says which trials of a running search have ended."""

    label: str
    task: Task
    rows: Sequence[Mapping[str, Any]]
    """Holds them as rows of `trials.parquet`."""


Event = Committed | TrialsEnded


@dataclass(frozen=True)
class RunRecord:
    """Holds what a tracker logs as one run."""

    identity: str
    """Identifies the run, so that it is logged once."""
    digest: str
    """Identifies its content: a run with another one is logged again."""
    name: str
    experiment: str
    """Names the experiment (the arm) that it belongs to; `study` if it belongs to none."""
    parent: tuple[str, str] | None = None
    """Holds identity and name of the run that it is a part of."""
    tags: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Curve] = field(default_factory=dict)
    images: Mapping[str, Path | bytes] = field(default_factory=dict)
    """Maps names with an ending, such as `samples.png`, to files or to their bytes."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Maps the names of other files, such as `report/index.html`, to their place on this machine."""
    text: str = ""
    """Holds a sentence for people."""
    began: float = 0.0
    """Gives the second, since 1970, in which the work began."""
    ended: float = 0.0
    failed: bool = False


@dataclass(frozen=True)
class Pending:
    """Refers to a run that may have been logged before, and whose files are read only if it was not."""

    identity: str
    digest: str
    read: Callable[[], RunRecord]


Logged = Callable[[str, str], bool]
"""Returns whether a run of that identity and digest is logged."""


def runs_of(event: Event, artifacts: Artifacts, logged: Logged) -> Iterator[Pending]:
    """Yields the runs that an event speaks of and that are not `logged`; a search comes after its trials.

    Reading them raises what the store raises.
    """
    for run in _all_runs(event, artifacts, logged):
        if not logged(run.identity, run.digest):
            yield run


def _all_runs(event: Event, artifacts: Artifacts, logged: Logged) -> Iterator[Pending]:
    if isinstance(event, TrialsEnded):
        yield from _trials(event.task, event.rows, artifacts)
        return
    manifest = event.manifest
    if manifest.stage == "tune":
        identity = _search_identity(event.task, artifacts)
        if not logged(identity, manifest.digest):  # it was logged after its trials
            import pyarrow.parquet as pq

            rows = pq.read_table(artifacts.fetch(manifest.file("trials.parquet"))).to_pylist()
            yield from _trials(event.task, rows, artifacts)
            yield Pending(identity, manifest.digest, lambda: _search(event, artifacts, identity))
    elif manifest.stage in _READERS:
        identity = f"{manifest.stage}/{manifest.key}"
        yield Pending(identity, manifest.digest, lambda: _READERS[manifest.stage](event, artifacts, identity))


def _record(event: Committed, identity: str, **more: Any) -> RunRecord:
    manifest = event.manifest
    try:
        ended = datetime.fromisoformat(manifest.run.created).timestamp()
    except ValueError:
        ended = 0.0
    tags = {
        "tailfill.study": manifest.study,
        "tailfill.stage": manifest.stage,
        "tailfill.key": manifest.key,
        "tailfill.digest": manifest.digest,
        "tailfill.version": tailfill_version(),
        "tailfill.device": manifest.run.device,
    }
    return RunRecord(
        identity,
        manifest.digest,
        event.label,
        event.task.experiment or "study",
        tags={**tags, **more.pop("tags", {})},
        began=max(ended - manifest.run.seconds, 0.0),
        ended=ended,
        **more,
    )


@cache
def tailfill_version() -> str:
    """Returns the version of the installed tailfill."""
    return version("tailfill")


# -- by stage


def _final(event: Committed, artifacts: Artifacts, identity: str) -> RunRecord:
    config = event.manifest.config
    arm = dict(_leaves(config.get("arm", {}))) | config.get("parameters", {})
    more = {
        "final.epochs": config.get("final", {}).get("epochs"),
        "seed": config.get("seed"),
        "repeat": config.get("repeat"),
    }
    return _record(
        event,
        identity,
        parameters=_values({**arm, **more}),
        metrics=_numbers(_json(event, artifacts, "metrics.json")),
        curves=_curves(_json(event, artifacts, "curve.json"), "epoch"),
    )


def _finetune(event: Committed, artifacts: Artifacts, identity: str) -> RunRecord:
    return _record(
        event,
        identity,
        parameters=_values(dict(_leaves(event.manifest.config.get("finetune", {})))),
        curves=_curves(_json(event, artifacts, "curve.json"), "step"),
        images=_images(event, artifacts, "samples.png"),
    )


def _generate(event: Committed, artifacts: Artifacts, identity: str) -> RunRecord:
    return _record(
        event,
        identity,
        parameters=_values(dict(_leaves(event.manifest.config.get("generate", {})))),
        metrics=_numbers(event.manifest.summary),
        images=_samples(event, artifacts),
    )


def _score(event: Committed, artifacts: Artifacts, identity: str) -> RunRecord:
    metrics = _numbers(_json(event, artifacts, "judges.json"))
    return _record(event, identity, metrics=metrics, images=_images(event, artifacts, "copies.png"))


def _report(event: Committed, artifacts: Artifacts, identity: str) -> RunRecord:
    files = {f"report/{file.name}": artifacts.fetch(file) for file in event.manifest.files}
    plots: dict[str, Path | bytes] = {name: path for name, path in files.items() if name.endswith(".png")}
    return _record(event, identity, images=plots, files=files, text=str(event.manifest.summary.get("answer", "")))


_READERS: Mapping[str, Callable[[Committed, Artifacts, str], RunRecord]] = {
    "final": _final,
    "finetune": _finetune,
    "generate": _generate,
    "score": _score,
    "report": _report,
}


def _search_identity(task: Task, artifacts: Artifacts) -> str:
    return f"search/{name_of_search(task, artifacts)}"


def _search(event: Committed, artifacts: Artifacts, identity: str) -> RunRecord:
    """Returns the run of a whole search. It has no parameters: MLflow keeps those for good, and a larger budget may find better ones."""
    names = [file.name for file in event.manifest.files if file.name in ("best.json", "importance.json")]
    shares = _json(event, artifacts, "importance.json")
    importance = {f"importance/{path}": share for path, share in shares.items()} if isinstance(shares, dict) else {}
    summary = {name: value for name, value in event.manifest.summary.items() if not isinstance(value, dict | list)}
    return _record(
        event,
        identity,
        tags={"tailfill.ended": str(event.manifest.summary.get("ended", ""))},
        metrics=_numbers({**summary, **importance}),
        files={name: artifacts.fetch(event.manifest.file(name)) for name in names},
    )


def _trials(task: Task, rows: Sequence[Mapping[str, Any]], artifacts: Artifacts) -> Iterator[Pending]:
    parent = _search_identity(task, artifacts)
    for row in rows:
        identity = f"trial/{parent.removeprefix('search/')}/{row.get('step') or ''}/{row['number']}"
        yield Pending(identity, str(row["state"]), partial(_trial, task, row, identity, parent))


def _trial(task: Task, row: Mapping[str, Any], identity: str, parent: str) -> RunRecord:
    config = task.config
    assert isinstance(config, TuneConfig)
    several = len(config.search.objectives) > 1
    metrics: dict[str, Any] = {"seconds": row.get("seconds")}
    curves = dict[str, Curve]()
    for objective in config.search.objectives:
        end = f".{objective}" if several else ""
        metrics[f"objective/{objective}"] = row.get(f"value{end}")
        curves[objective] = [
            (epoch, value) for epoch, value in enumerate(row.get(f"curve{end}") or ()) if _is_number(value)
        ]
    began = datetime.fromisoformat(row["started"]).timestamp() if row.get("started") else 0.0
    step, experiment = row.get("step") or "", task.experiment or "study"
    tags = {
        "tailfill.study": task.study,
        "tailfill.stage": "tune",
        "tailfill.key": task.key,
        "tailfill.trial": str(row["number"]),
        "tailfill.state": str(row["state"]),
        "tailfill.repetition": "" if row.get("repetition") is None else str(row["repetition"]),
        "tailfill.failure": row.get("failure") or "",
        "tailfill.version": tailfill_version(),
    }
    return RunRecord(
        identity,
        str(row["state"]),
        " ".join(filter(None, ["trial", step, f"{row['number']:04d}"])),
        experiment,
        parent=(parent, f"tune {experiment}"),
        tags={name: value for name, value in tags.items() if value},
        parameters=_values({path: row.get(path) for path in config.search.space}),
        metrics=_numbers(metrics),
        curves=curves,
        began=began,
        ended=began + (row.get("seconds") or 0.0),
        failed=row["state"] == "failed",
    )


# -- parts of a run


def _json(event: Committed, artifacts: Artifacts, name: str) -> Any:
    """Returns the content of a JSON file of the result, or None if it has none of that name."""
    for file in event.manifest.files:
        if file.name == name:
            return json.loads(artifacts.fetch(file).read_bytes())
    return None


def _images(event: Committed, artifacts: Artifacts, name: str) -> dict[str, Path | bytes]:
    return {file.name: artifacts.fetch(file) for file in event.manifest.files if file.name == name}


def _samples(event: Committed, artifacts: Artifacts) -> dict[str, Path | bytes]:
    """Returns some images of the first file of generated ones, evenly spread over its rows, as they were encoded."""
    import pyarrow.parquet as pq

    shards = event.manifest.shards("images")
    if not shards or shards[0].size > LARGEST_SHARD:
        return {}
    table = pq.read_table(artifacts.fetch(shards[0]), columns=["image"])
    count = min(IMAGES, table.num_rows)
    rows = [index * table.num_rows // count for index in range(count)]
    found = [(row, table["image"][row].as_py()["bytes"]) for row in rows]
    return {f"images/{row:05d}.{'png' if content.startswith(PNG) else 'jpg'}": content for row, content in found}


def _curves(points: Any, axis: str) -> dict[str, Curve]:
    """Returns a curve per name of the points, which are mappings that hold `axis`."""
    curves = dict[str, Curve]()
    for number, point in enumerate(points or ()):
        step = int(point.get(axis, number))
        for name, value in point.items():
            if name != axis and _is_number(value):
                curves.setdefault(name, []).append((step, float(value)))
    return curves


def _numbers(tree: Any) -> dict[str, float]:
    """Returns the finite numbers of a tree, by their path."""
    return {path: float(value) for path, value in _leaves(tree, "/") if _is_number(value)}


def _values(values: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Returns the values that say something; what is no number, word or truth value is written as JSON."""
    return {
        path: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for path, value in values.items()
        if value is not None
    }


def _leaves(tree: Any, separator: str = ".", path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and depth < DEEPEST:
        for name, value in tree.items():
            yield from _leaves(value, separator, f"{path}{separator}{name}" if path else str(name), depth + 1)
    elif path:
        yield path, tree


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def plain_name(name: str) -> str:
    """Returns a name in which only letters, digits, `_`, `-`, `.`, spaces and `/` are left, and that stays below where it is put."""
    parts = [re.sub(r"[^\w\-. ]", "_", part) or "_" for part in name.split("/")]
    return "/".join("_" if set(part) <= {".", " "} else part for part in parts)[:200]


def plainly_named(values: Mapping[str, V]) -> dict[str, V]:
    """Returns values under plain names; a number is added to a name that another one has become."""
    named = dict[str, V]()
    for name, value in values.items():
        plain, number = plain_name(name), 1
        while plain in named:
            number += 1
            plain = f"{plain_name(name)} {number}"
        named[plain] = value
    return named
