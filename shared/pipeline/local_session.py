"""Opens a study on this machine: its work directory, and the services that it needs."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.artifacts.folder import FolderStore
from shared.artifacts.hub_location import share_fetched
from shared.artifacts.open import is_s3
from shared.config.load import study_from_tree
from shared.config.resolve import ResolvedStudy
from shared.data.review import review_locations
from shared.data.sources.digest import check_outside
from shared.errors import ConfigError
from shared.pipeline.session import Fingerprints, Session, compute_fingerprints, open_session
from shared.services.services import check_services, joined_services, services
from shared.settings import Settings
from shared.weights.digests import weight_locations

WORK = Path("work")
STUDY_FILE = "study.json"
"""Names the file in the work directory that holds the study as it was run last, including `--set`, and the fingerprints of its data and weights."""
DIGESTS = "digests"
"""Names the folder in the work directory with digests of weights, so that these are read once."""


@dataclass(frozen=True)
class LocalSession:
    """Holds a study that is open on this machine."""

    session: Session
    environment: dict[str, str]
    """Holds the environment variables that a stage process needs in addition to those of this process."""


@contextlib.contextmanager
def local_session(
    study: ResolvedStudy, fingerprints: Fingerprints, workdir: Path, join: bool = False, database: bool = True
) -> Iterator[LocalSession]:
    """Opens a study, and runs the services that the environment does not name until the block ends.

    With `join`, the services of a run that is using the work directory are used instead. Without it, UnavailableError is raised if there is
    such a run. With `database=False` no PostgreSQL is started, for a command that only reads what is committed.
    """
    run_services = joined_services if join else services
    with run_services(workdir, Settings.from_environment(), database) as started:
        cache = {} if os.environ.get("TAILFILL_CACHE") else {"TAILFILL_CACHE": str((workdir / "cache").resolve())}
        environment = {**started, **cache}
        if cache:
            share_fetched(Settings.from_environment().cache, workdir / "cache")
        settings = Settings.from_environment({**os.environ, **environment})
        yield LocalSession(open_session(study, fingerprints, settings), environment)


def current_fingerprints(study: ResolvedStudy, workdir: Path) -> Fingerprints:
    """Returns the fingerprints of the study's data and weights as they are now.

    Raises DataError if they cannot be read, and the errors of `check_locations`.
    """
    check_locations(study, workdir)
    return compute_fingerprints(study, Settings.from_environment(), FolderStore(workdir / DIGESTS))


def check_locations(study: ResolvedStudy, workdir: Path) -> None:
    """Raises ConfigError for a bucket whose server is not named or a work directory inside the data, and the errors of `check_services`."""
    settings = Settings.from_environment()
    check_services(workdir, settings)
    files, folders = weight_locations(study)
    root = study.dataset.root
    check_outside(workdir, root, "name a work directory elsewhere with --workdir")
    named = [("dataset.root", root)] if root is not None else []
    named += [(setting, file) for file, setting in files.items()] + [("finetune.base", folder) for folder in folders]
    named += [("accept.reviewed", review) for review in review_locations(study)]
    for path, location in named:
        if settings.store is None and is_s3(location):
            raise ConfigError(
                f"{path}: {location} is in a bucket, but no store is named and the one on this machine would hide its server; "
                "set TAILFILL_STORE=s3://bucket/prefix on the same server"
            )


def latest_workdir(workdir: Path | None) -> Path:
    """Returns the given work directory, or the one in `work/` that was used last; raises ConfigError if no study was run there."""
    known = sorted(WORK.glob(f"*/{STUDY_FILE}"), key=lambda path: path.stat().st_mtime)
    candidates = known if workdir is None else [workdir / STUDY_FILE]
    if not candidates or not candidates[-1].exists():
        raise ConfigError(
            f"{workdir or WORK}: holds no study that was run; name one with --workdir, or start with `tailfill run STUDY.yaml`"
        )
    return candidates[-1].parent


def last_study(folder: Path) -> tuple[ResolvedStudy, Fingerprints]:
    """Returns the study that was run last in a work directory, and the fingerprints of its data and weights at that time.

    Raises ConfigError if the file that holds them is damaged.
    """
    try:
        saved = json.loads((folder / STUDY_FILE).read_bytes())
        return study_from_tree(saved["study"]), Fingerprints(saved["source"], saved["weights"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / STUDY_FILE}: is damaged ({error}); run the study again") from error
