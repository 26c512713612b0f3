"""Downloads chosen files of one repository of the Hugging Face hub, pinned to a commit, and pushes a folder to one. No other module uses
huggingface_hub.

Files are fetched by name. Callers name safetensors and small text files, and a pickle only to convert it (`shared.weights.pickles`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from json import JSONDecodeError
from pathlib import Path
from typing import Literal, TypeVar

from httpx2 import Client, HTTPError, Response
from huggingface_hub import HfApi, hf_hub_download, is_offline_mode, set_client_factory
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import DatasetInfo, ModelInfo
from huggingface_hub.utils._http import default_client_factory  # the public names have no way to add to it
from huggingface_hub.utils._validators import validate_repo_id
from huggingface_hub.utils.tqdm import disable_progress_bars

from shared.artifacts.disk import lack_of_room
from shared.digests import file_digest
from shared.errors import ConfigError, DataError, UnavailableError
from shared.log import Log
from shared.names import checked_name, checked_part, shown
from shared.retries import Backoff, retrying
from shared.settings import Settings
from shared.stop import StopSignal
from shared.weights.roles import PINS

T = TypeVar("T")
Kind = Literal["model", "dataset"]
log = Log("weights")

ATTEMPTS = 4
BACKOFF = Backoff(1.0)
ANSWER_SECONDS = 30.0
FIRST_ANSWER_SECONDS = 5.0
"""Limits how long the hub is waited for by those who can do without it."""


@dataclass(frozen=True)
class Repository:
    """Describes one commit of a repository."""

    name: str
    setting: str
    """Gives the setting of the study that names it, for messages: `finetune.base` or `classifier.pretrained`."""
    commit: str
    files: Mapping[str, str | None]
    """Maps the names of all files to the SHA-256, which the hub knows of the large ones only."""
    folder: Path
    """Points to the folder of downloads, in which an interrupted download continues."""
    kind: Kind = "model"
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Maps the names of all files to their sizes in bytes."""


def hub_answers() -> bool:
    """Returns whether the hub answers within a few seconds. With HF_HUB_OFFLINE it is not asked."""
    if is_offline_mode():
        return False
    try:
        with default_client_factory() as client:
            client.head(HfApi().endpoint, timeout=FIRST_ANSWER_SECONDS)
    except (HTTPError, OSError):
        return False
    return True


def open_repository(
    name: str, revision: str | None, setting: str, settings: Settings, stop: StopSignal, kind: Kind = "model"
) -> Repository:
    """Asks the hub for the commit and the files of a repository of a model or a data set.

    Raises ConfigError if it does not exist or access is refused, UnavailableError if the hub does not answer, and Stopped.
    """
    disable_progress_bars()
    set_client_factory(_checking_client)

    def ask() -> ModelInfo | DatasetInfo:
        api = HfApi(token=_token(settings))
        info = api.model_info if kind == "model" else api.dataset_info
        return info(name, revision=revision, files_metadata=True, timeout=ANSWER_SECONDS)

    info = _with_retries(ask, name, revision, setting, stop)
    files = {each.rfilename: each.lfs.sha256 if each.lfs else None for each in info.siblings or ()}
    if info.sha is None or not re.fullmatch("[0-9a-f]{40}", info.sha):
        raise DataError(
            f"{setting} {name}: the hub gives {shown(info.sha)} for its commit; fix HF_ENDPOINT, or name a folder"
        )
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
    return Repository(name, setting, info.sha, files, settings.cache / "hub", kind, sizes)


def _checking_client() -> Client:
    client: Client = default_client_factory()
    hooks = client.event_hooks
    client.event_hooks = {**hooks, "response": [*hooks.get("response", ()), _check_headers]}
    return client


def _check_headers(response: Response) -> None:
    """Raises DataError if a header that huggingface_hub uses unchecked as a path in its cache would leave the cache."""
    if response.request.method != "HEAD":
        return
    tag = response.headers.get("X-Linked-Etag") or response.headers.get("ETag")
    for value in (tag and tag.lstrip("W/").strip('"'), response.headers.get("X-Repo-Commit")):
        if value is not None:
            checked_part(value, f"hub at {response.request.url.host}", DataError)


def download(repository: Repository, names: Sequence[str], settings: Settings, stop: StopSignal) -> dict[str, Path]:
    """Returns the local paths of these files, by name; raises what open_repository raises, and UnavailableError if a digest differs."""
    found = {}
    for name in log.progress(names, f"fetch {repository.name}", len(names), "files"):
        stop.raise_if_set()
        checked_name(name, repository.name, DataError)

        def fetch(name: str = name) -> Path:
            path = hf_hub_download(
                repository.name,
                name,
                repo_type=repository.kind,
                revision=repository.commit,
                cache_dir=repository.folder,
                token=_token(settings),
            )
            return Path(path)

        found[name] = _with_retries(fetch, repository.name, repository.commit, repository.setting, stop)
        _check(repository, name, found[name])
    return found


def check_repository(name: str, settings: Settings) -> None:
    """Raises ConfigError if the name is not that of a hub repository, or if nothing can be pushed, offline or without a token."""
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(
            f"--push: {name!r} is no name of a repository ({_first_line(error)}); name owner/name"
        ) from error
    if name.count("/") != 1:
        raise ConfigError(f"--push: {name!r} names no owner; name owner/name")
    if is_offline_mode():
        raise ConfigError("--push: HF_HUB_OFFLINE forbids to push; unset it")
    if settings.hub_token is None:
        raise ConfigError("--push: HF_TOKEN is not set; set it to a token that may write to the repository")


def push_folder(folder: Path, name: str, settings: Settings) -> str:
    """Pushes all files of a folder as one commit, into a new private repository if there is none, and returns a line about it.

    Raises ConfigError if the hub refuses, and UnavailableError if it does not answer.
    """
    check_repository(name, settings)
    disable_progress_bars()
    api = HfApi(token=_token(settings))

    def push() -> str:
        api.create_repo(name, private=True, exist_ok=True)
        info = api.upload_folder(repo_id=name, folder_path=folder, commit_message="Export by tailfill")
        return f"pushed to {name} as commit {info.oid[:8]}"

    def attempt() -> str:
        try:
            return push()
        except (HfHubHTTPError, HTTPError, OSError, RuntimeError, ValueError) as error:
            if isinstance(error, ValueError) and not isinstance(error, JSONDecodeError):  # a proxy may answer no JSON
                raise ConfigError(
                    f"--push {name}: the hub refuses the card ({' '.join(str(error).split())}); mend README.md in {folder}, which is complete, "
                    "and push it with `hf upload`"
                ) from error
            status = getattr(getattr(error, "response", None), "status_code", 500)
            if 400 <= status < 500 and status not in (408, 429):
                raise ConfigError(
                    f"--push {name}: the hub refuses us ({_first_line(error)}); fix HF_TOKEN or the name. The folder {folder} is complete"
                ) from error
            raise UnavailableError(
                f"--push {name}: failed ({_first_line(error)}); the folder {folder} is complete: push it again with `hf upload`"
            ) from error

    warn = partial(log.warning, "retry", repository=name)
    return retrying(UnavailableError, BACKOFF, warn, ATTEMPTS)(attempt)


def _check(repository: Repository, name: str, path: Path) -> None:
    wanted = repository.files[name]
    if wanted is None:
        return
    digest = file_digest(path)
    if digest != wanted:
        path.resolve().unlink()  # else the next attempt would use it
        raise UnavailableError(
            f"{repository.setting}: {repository.name}/{name} arrived with digest {digest}, the hub says {wanted}; run again"
        )


def _token(settings: Settings) -> str | bool:
    """Returns the token, or False to send none, as huggingface_hub looks for one elsewhere if it gets None."""
    return settings.hub_token.get_secret_value() if settings.hub_token else False


def _with_retries(call: Callable[[], T], name: str, revision: str | None, setting: str, stop: StopSignal) -> T:
    """Returns what `call` returns; calls it again while the hub is unavailable."""

    def attempt() -> T:
        with _hub_errors(name, revision, setting):
            return call()

    warn = partial(log.warning, "retry", repository=name)
    return retrying(UnavailableError, BACKOFF, warn, ATTEMPTS, check=stop.raise_if_set)(attempt)


@contextmanager
def _hub_errors(name: str, revision: str | None, setting: str) -> Iterator[None]:
    at = f"{name}@{revision}" if revision else name
    pin = PINS.get(setting, setting)
    holds = "the images" if setting == "dataset.root" else "the model"
    try:
        yield
    except HFValidationError as error:
        raise ConfigError(f"{setting}: {name!r} is neither a folder nor a hub name ({_first_line(error)})") from error
    except OfflineModeIsEnabled as error:
        raise ConfigError(
            f"{setting} {at}: HF_HUB_OFFLINE forbids to fetch it; unset it, or name a folder or s3://bucket/prefix"
        ) from error
    except GatedRepoError as error:
        raise ConfigError(
            f"{setting} {at}: its owner must grant access first; set HF_TOKEN to a token that has it"
        ) from error
    except RevisionNotFoundError as error:
        raise ConfigError(
            f"{pin}: {name} has no revision {revision!r} on the hub; name a commit that it has"
        ) from error
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"{setting}: {name} is neither a folder here nor a public repository of the hub; fix the name, or set HF_TOKEN"
        ) from error
    except (HfHubHTTPError, HTTPError, OSError, RuntimeError) as error:  # hf_xet raises RuntimeError for the network's
        if (unavailable := lack_of_room(error)) is not None:
            raise unavailable from error
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            raise ConfigError(f"{setting} {at}: the hub refuses us ({_first_line(error)}); fix HF_TOKEN") from error
        raise UnavailableError(
            f"{setting} {at}: fetching it from the hub failed ({_first_line(error)}); run again when the hub answers, or name a "
            f"folder or s3://bucket/prefix that holds {holds}"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
