"""A study on this machine: its work directory, and the services around whatever is done with it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.artifacts.folder import FolderStore
from shared.artifacts.open import is_s3
from shared.config.load import study_from_tree
from shared.config.resolve import ResolvedStudy
from shared.data.sources.digest import check_outside
from shared.errors import ConfigError
from shared.pipeline.session import Fingerprints, Session, fingerprints, open_session
from shared.services.services import joined_services, services
from shared.settings import Settings
from shared.weights.digests import weight_locations

WORK = Path("work")
STUDY_FILE = "study.json"
"""In the work directory: the study as it was run last, `--set` included, and the fingerprints of its data and weights."""
DIGESTS = "digests"
"""In the work directory: digests of weights, so that they are read once."""


@dataclass(frozen=True)
class LocalSession:
    """A study opened on this machine."""

    session: Session
    environment: dict[str, str]
    """What a stage process needs beyond this one's environment."""


@contextlib.contextmanager
def local_session(
    study: ResolvedStudy, found: Fingerprints, workdir: Path, look: bool = False
) -> Iterator[LocalSession]:
    """Starts the services that the environment does not name, for as long as the block runs.

    With `look`, those of a run that goes on in the work directory are used.
    """
    begin = joined_services if look else services
    with begin(workdir, Settings.from_environment()) as started:
        cache = {} if os.environ.get("TAILFILL_CACHE") else {"TAILFILL_CACHE": str((workdir / "cache").resolve())}
        environment = {**started, **cache}
        settings = Settings.from_environment({**os.environ, **environment})
        yield LocalSession(open_session(study, found, settings), environment)


def current_fingerprints(study: ResolvedStudy, workdir: Path) -> Fingerprints:
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


def latest_workdir(workdir: Path | None) -> Path:
    """The named work directory, or the one in `work/` that was used last; raises ConfigError."""
    kept = sorted(WORK.glob(f"*/{STUDY_FILE}"), key=lambda path: path.stat().st_mtime)
    candidates = kept if workdir is None else [workdir / STUDY_FILE]
    if not candidates or not candidates[-1].exists():
        where = workdir or WORK
        raise ConfigError(
            f"{where}: holds no study that was run; name one with --workdir, or start with `tailfill run STUDY.yaml`"
        )
    return candidates[-1].parent


def last_study(folder: Path) -> tuple[ResolvedStudy, Fingerprints]:
    """The study that was run there last, and the fingerprints that its data and weights had."""
    try:
        kept = json.loads((folder / STUDY_FILE).read_bytes())
        return study_from_tree(kept["study"]), Fingerprints(kept["source"], kept["weights"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder / STUDY_FILE}: is damaged ({error}); run the study again") from error
