"""What the command does on one machine: services around a run, and a look at what a work directory holds."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs import status as status_module
from jobs.console import open_console, summary
from jobs.control import Control, fetch_report
from jobs.earlier import earlier_searches
from jobs.plan import Step, plan
from shared.artifacts.artifacts import Artifacts
from shared.artifacts.open import is_s3, open_store
from shared.config.load import load_study, study_from_tree
from shared.config.study import Study
from shared.config.task import STAGES
from shared.context import StopSignal
from shared.data.sources.digest import source_digest
from shared.errors import ConfigError
from shared.services.services import joined_services, services
from shared.settings import Settings

WORK = Path("work")
STUDY_FILE = "study.json"
"""In the work directory: the study as it was run last, `--set` included, and its data's fingerprint."""


@dataclass(frozen=True)
class Opened:
    """A study with its artifacts, services running."""

    study: Study
    steps: list[Step]
    """The study's plan."""
    artifacts: Artifacts
    environment: dict[str, str]
    """What a stage process needs beyond this one's environment."""
    workdir: Path


@contextlib.contextmanager
def opened(study: Study, source: str | None, workdir: Path, look: bool = False) -> Iterator[Opened]:
    """Starts the services that the environment does not name, for as long as the block runs. `source` is the data's fingerprint.

    With `look`, those of a run that goes on in the work directory are used.
    """
    begin = joined_services if look else services
    with begin(workdir, Settings.from_environment()) as started:
        cache = {} if os.environ.get("TAILFILL_CACHE") else {"TAILFILL_CACHE": str((workdir / "cache").resolve())}
        environment = {**started, **cache}
        settings = Settings.from_environment({**os.environ, **environment})
        artifacts = Artifacts(open_store(settings), study.name, settings.cache)
        steps = plan(study, source, earlier_searches(study, artifacts))
        yield Opened(study, steps, artifacts, environment, workdir)


def _scratch(workdir: Path) -> dict[str, str]:
    """The stages' folder for files on their way: emptied first, since a stage that was killed leaves some."""
    folder = (workdir / "scratch").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return {"TMPDIR": str(folder)}


def run_study(
    file: Path,
    sets: Sequence[str],
    workdir: Path | None,
    workers: int | None,
    rerun: Sequence[str],
    log: str,
    as_json: bool,
) -> str:
    """Runs the study to its report; returns what goes to stdout: the page's path, or JSON."""
    for stage in rerun:
        if stage not in STAGES:
            raise ConfigError(f"--rerun {stage}: there is no such stage; there are {', '.join(STAGES)}")
    stop = StopSignal()
    stop.install()
    start = time.monotonic()
    study = load_study(file, sets)
    settings = Settings.from_environment()
    root = getattr(study.dataset, "root", "")
    if settings.store is None and is_s3(root):
        raise ConfigError(
            f"dataset.root: {root} is in a bucket, but no store is named and the one on this machine would hide its server; "
            "set TAILFILL_STORE=s3://bucket/prefix on the same server"
        )
    source = source_digest(study.dataset, settings)
    workdir = workdir or WORK / study.name
    with open_console(log) as console, opened(study, source, workdir) as here:
        stop.raise_if_set()
        for step in here.steps:
            if step.earlier is not None:
                step.earlier.committed()  # to be told now, not when its turn comes
        console.say(f"study {study.name}: {len(here.steps)} stages; work directory {workdir}")
        environment = {**here.environment, **_scratch(workdir)}
        tree = study.model_dump(mode="json", by_alias=True, exclude_unset=True)
        (workdir / STUDY_FILE).write_text(json.dumps({"study": tree, "source": source}, indent=1))
        control = Control(study, here.steps, here.artifacts, workdir, environment, console, stop, workers)
        report = control.run(frozenset(rerun))
        page = fetch_report(here.artifacts, report, workdir / "report")
        console.say(summary(len(control.committed) - control.reused, control.reused, time.monotonic() - start))
    return json.dumps({"report": str(page), "digest": report.digest, **report.summary}) if as_json else str(page)


def status(workdir: Path | None, why: str | None, as_json: bool) -> str:
    """The state of each stage, or with `why` what would make a stage run again."""
    folder = _latest(workdir)
    with opened(*_last_study(folder), folder, look=True) as here:
        if why is not None:
            return status_module.why(here.study, here.steps, here.artifacts, why)
        rows = status_module.states(here.study, here.steps, here.artifacts)
        return json.dumps(status_module.as_json(rows), indent=1) if as_json else status_module.describe(rows)


def print_report(workdir: Path | None, as_json: bool) -> str:
    """The path of the report's page, fetched anew; or its results.json."""
    folder = _latest(workdir)
    with opened(*_last_study(folder), folder, look=True) as here:
        last = status_module.states(here.study, here.steps, here.artifacts)[-1]
        if last.manifest is None:
            raise ConfigError(
                f"{folder}: its report is not committed; `tailfill run` goes on, `tailfill status` says where it stands"
            )
        page = fetch_report(here.artifacts, last.manifest, folder / "report")
    return (page.parent / "results.json").read_text() if as_json else str(page)


def export_images(what: str, out: Path, workdir: Path | None) -> str:
    """Writes the data set or the generated images into `out`; returns a line that counts them."""
    from jobs.export import export

    stage = "prepare" if what == "dataset" else "generate"
    folder = _latest(workdir)
    with opened(*_last_study(folder), folder, look=True) as here:
        rows = status_module.states(here.study, here.steps, here.artifacts)
        found = {row.step.stage: row.manifest for row in rows if row.manifest is not None}
        if stage not in found:
            raise ConfigError(
                f"{folder}: nothing is committed of {stage}; `tailfill status` says where the study stands"
            )
        generated = found["generate"] if what == "generated" else None
        return export(here.artifacts, found["prepare"], generated, found.get("score"), out, here.study.accept)


def _latest(workdir: Path | None) -> Path:
    """The named work directory, or the one in `work/` that was used last; raises ConfigError."""
    kept = sorted(WORK.glob(f"*/{STUDY_FILE}"), key=lambda path: path.stat().st_mtime)
    candidates = kept if workdir is None else [workdir / STUDY_FILE]
    if not candidates or not candidates[-1].exists():
        where = workdir or WORK
        raise ConfigError(
            f"{where}: holds no study that was run; name one with --workdir, or start with `tailfill run STUDY.yaml`"
        )
    return candidates[-1].parent


def _last_study(folder: Path) -> tuple[Study, str | None]:
    """The study that was run there last, and the fingerprint that its data had."""
    try:
        kept = json.loads((folder / STUDY_FILE).read_bytes())
        return study_from_tree(kept["study"]), kept["source"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / STUDY_FILE}: is damaged ({error}); run the study again") from error


def simulate_search(workers: int, trials: int, as_json: bool) -> str:
    """Runs the search's machinery with a trivial objective on a PostgreSQL of its own, or that of DATABASE_URL; returns what it showed."""
    from shared.search.simulate import simulate

    with tempfile.TemporaryDirectory(prefix="tailfill-") as folder:
        environment = {**os.environ, "TAILFILL_STORE": folder}  # no trial keeps anything: no S3 server is needed
        with services(Path(folder), Settings.from_environment(environment)) as started:
            settings = Settings.from_environment({**environment, **started})
            assert settings.database_url is not None
            shown = asdict(simulate(settings.database_url.get_secret_value(), workers, trials))
    return (
        json.dumps(shown)
        if as_json
        else "\n".join(f"{name.replace('_', ' ')}: {value:.6g}" for name, value in shown.items())
    )
