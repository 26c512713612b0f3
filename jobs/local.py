"""What the command does on one machine: services around a run, and a look at what a work directory holds."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jobs import progress
from jobs import status as status_module
from jobs.console import open_console, summary
from jobs.control import Control, fetch_report
from jobs.machine import Machine, running_here
from jobs.opened import Fingerprints, Opened, fingerprints, open_study
from shared.artifacts.folder import FolderStore
from shared.artifacts.open import is_s3
from shared.config.load import changed_study, load_study, study_from_tree, study_tree
from shared.config.resolve import ResolvedStudy
from shared.config.stages import stage_named
from shared.data.sources.digest import check_outside
from shared.errors import ConfigError
from shared.search.identity import searches_of
from shared.search.metrics_server import metrics_served
from shared.services.services import joined_services, services
from shared.settings import Settings
from shared.stop import StopSignal
from shared.weights import weight_locations

WORK = Path("work")
STUDY_FILE = "study.json"
"""In the work directory: the study as it was run last, `--set` included, and the fingerprints of its data and weights."""
DIGESTS = "digests"
"""In the work directory: digests of weights, so that they are read once."""


@dataclass(frozen=True)
class Here:
    """A study opened on this machine."""

    opened: Opened
    environment: dict[str, str]
    """What a stage process needs beyond this one's environment."""


@contextlib.contextmanager
def opened(study: ResolvedStudy, found: Fingerprints, workdir: Path, look: bool = False) -> Iterator[Here]:
    """Starts the services that the environment does not name, for as long as the block runs.

    With `look`, those of a run that goes on in the work directory are used.
    """
    begin = joined_services if look else services
    with begin(workdir, Settings.from_environment()) as started:
        cache = {} if os.environ.get("TAILFILL_CACHE") else {"TAILFILL_CACHE": str((workdir / "cache").resolve())}
        environment = {**started, **cache}
        settings = Settings.from_environment({**os.environ, **environment})
        yield Here(open_study(study, found, settings), environment)


def found_now(study: ResolvedStudy, workdir: Path) -> Fingerprints:
    """Fingerprints of data and weights as they are now; raises DataError where there are none, ConfigError for a bucket out of reach
    and for a work directory that lies among the data."""
    settings = Settings.from_environment()
    files, folders = weight_locations(study)
    root = study.dataset.root
    check_outside(workdir, root, "name a work directory elsewhere with --workdir")
    named = [("dataset.root", root)] if root is not None else []
    named += [("classifier.pretrained", file) for file in files] + [("finetune.base", folder) for folder in folders]
    for path, location in named:
        if settings.store is None and is_s3(location):
            raise ConfigError(
                f"{path}: {location} is in a bucket, but no store is named and the one on this machine would hide its server; "
                "set TAILFILL_STORE=s3://bucket/prefix on the same server"
            )
    return fingerprints(study, settings, FolderStore(workdir / DIGESTS))


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
        stage_named(stage, f"--rerun {stage}")
    stop = StopSignal()
    stop.install()
    start = time.monotonic()
    study = load_study(file, sets)
    workdir = workdir or WORK / study.name
    found = found_now(study, workdir)
    with open_console(log) as console, opened(study, found, workdir) as machine:
        here = machine.opened
        stop.raise_if_set()
        for step in here.steps:
            if step.earlier is not None:
                step.earlier.committed()  # to be told now, not when its turn comes
        console.say(f"study {study.name}: {len(here.steps)} stages; work directory {workdir}")
        # one port for the whole run: coordinators of several experiments are at work at once
        environment = {**machine.environment, **_scratch(workdir), "TAILFILL_METRICS_PORT": ""}
        (workdir / STUDY_FILE).write_text(json.dumps({"study": study_tree(study), **asdict(found)}, indent=1))
        executor = Machine(study, here.steps, workdir, environment, console, workers)
        control = Control(study, here.steps, here.artifacts, executor, console.say, stop)
        with metrics_served(here.settings, study.name, searches_of(study.name)):
            report = control.run(frozenset(rerun))
        page = fetch_report(here.artifacts, report, workdir / "report")
        console.say(summary(len(control.committed) - control.reused, control.reused, time.monotonic() - start))
    return json.dumps({"report": str(page), "digest": report.digest, **report.summary}) if as_json else str(page)


def status(file: Path | None, sets: Sequence[str], workdir: Path | None, why: str | None, as_json: bool) -> str:
    """The state of each stage and search, or with `why` what would make a stage run again.

    Of the study as it was run last; with a study file or `--set`, of that one, as it would be run now.
    """
    study, found, folder = _asked(file, sets, workdir)
    with opened(study, found, folder, look=True) as machine:
        here = machine.opened
        if why is not None:
            said = status_module.why(here.study, here.steps, here.artifacts, why)
            return json.dumps({"why": said.splitlines()}, ensure_ascii=False) if as_json else said
        rows = status_module.states(here.study, here.steps, here.artifacts, running_here(folder))
        searches = progress.search_states(rows, here.artifacts, here.database_url)
        if as_json:
            return json.dumps(status_module.as_json(rows, progress.as_json(searches)), indent=1)
        return "\n".join(filter(None, [status_module.describe(rows), progress.describe(searches)]))


def _asked(file: Path | None, sets: Sequence[str], workdir: Path | None) -> tuple[ResolvedStudy, Fingerprints, Path]:
    if file is None:
        folder = _latest(workdir)
        study, found = _last_study(folder)
        if not sets:
            return study, found, folder
        study = changed_study(study, sets)
    else:
        study = load_study(file, sets)
        folder = workdir or WORK / study.name
        if Settings.from_environment().store is None:
            _latest(folder)  # else servers would be started to say that nothing was ever run
    return study, found_now(study, folder), folder


def print_report(workdir: Path | None, as_json: bool) -> str:
    """The path of the report's page, fetched anew; or its results.json."""
    folder = _latest(workdir)
    with opened(*_last_study(folder), folder, look=True) as machine:
        here = machine.opened
        last = status_module.states(here.study, here.steps, here.artifacts)[-1]
        if last.manifest is None:
            raise ConfigError(
                f"{folder}: its report is not committed; `tailfill run` goes on, `tailfill status` says where it stands"
            )
        page = fetch_report(here.artifacts, last.manifest, folder / "report")
    return (page.parent / "results.json").read_text() if as_json else str(page)


def export_images(what: str, out: Path, experiment: str | None, workdir: Path | None) -> str:
    """Writes the data set, or the images generated for an experiment, into `out`; returns a line that counts them."""
    from jobs.export import export, generated_images

    if what == "dataset" and experiment is not None:
        raise ConfigError(f"--experiment {experiment}: goes with `export generated`; the data set is one for all")
    folder = _latest(workdir)
    with opened(*_last_study(folder), folder, look=True) as machine:
        here = machine.opened
        rows = status_module.states(here.study, here.steps, here.artifacts)
        committed = {row.step.id: row.manifest for row in rows}
        prepare = here.steps[-1].needs["prepare"]
        images = generated_images(here.study, here.steps, experiment) if what == "generated" else None
        asked = images.generate if images else prepare
        prepared, made = committed[prepare.id], committed[asked.id]
        if prepared is None or made is None:
            raise ConfigError(
                f"{folder}: nothing is committed of {asked.stage}; `tailfill status` says where the study stands"
            )
        if images is None:
            return export(here.artifacts, prepared, None, None, out)
        return export(here.artifacts, prepared, made, committed[images.score.id], out, images.accept)


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


def _last_study(folder: Path) -> tuple[ResolvedStudy, Fingerprints]:
    """The study that was run there last, and the fingerprints that its data and weights had."""
    try:
        kept = json.loads((folder / STUDY_FILE).read_bytes())
        return study_from_tree(kept["study"]), Fingerprints(kept["source"], kept["weights"])
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


def dashboard(workdir: Path | None, port: int, ready: Callable[[str], None]) -> None:
    """Serves Optuna's dashboard on the study's database until Ctrl-C; `ready` is told its address."""
    from shared.search.dashboard import serve_dashboard

    stop = StopSignal()
    stop.install()
    folder = _latest(workdir)
    with opened(*_last_study(folder), folder, look=True) as machine:
        here = machine.opened
        serve_dashboard(here.database_url, port, stop, ready)
