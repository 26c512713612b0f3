"""Logs runs to an MLflow server: an experiment per study, a run per result, and the trials of a search as runs nested in it.

Runs are found again by their tags, so that nothing is logged twice. No other module uses MLflow, which is imported at the first event.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from shared.errors import ConfigError, DataError, UnavailableError
from shared.names import path_below
from shared.settings import Settings
from shared.terminal import shortened
from shared.tracking.records import RunRecord, plainly_named
from shared.tracking.urls import Address, read_address

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

VARIABLE = "MLFLOW_TRACKING_URI"
IDENTITY, DIGEST = "tailfill.identity", "tailfill.logged"
"""Name the tags by which a run is found again: what it is, and the digest of its content once all of it is logged."""
MOST_METRICS, MOST_PARAMETERS = 1000, 100  # in one request, as MLflow allows
LONGEST = 5000  # characters of a parameter or tag, as MLflow allows
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # else it reports its use to its makers
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # retries are ours (shared.tracking.delivery)
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout has the command's result
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Sets what MLflow's client reads from the environment, unless the user has."""
REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
"""Lists the error codes of MLflow that a later attempt would meet again."""


@dataclass
class _Known:
    """Holds a run that is on the server."""

    run_id: str
    digest: str | None
    """Identifies the content that was logged whole; None if the run is not complete."""


class MlflowRuns:
    """Logs runs to the server that MLFLOW_TRACKING_URI names."""

    name = "MLflow"

    def __init__(self, settings: Settings, study: str) -> None:
        """Connects to nothing yet; raises ConfigError if the address is none of HTTP, or MLflow's client is not installed."""
        assert settings.mlflow_uri is not None
        self._address = _server(settings)
        self._study = study
        secrets = [*settings.mlflow_secrets, *filter(None, [self._address.password])]
        self._secrets = [secret.get_secret_value() for secret in secrets]
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._known: dict[str, _Known] | None = None
        """Holds the runs on the server by identity; None before they are read, and after a failure, whose run may be there or not."""

    def logged(self, identity: str, digest: str) -> bool:
        """Returns whether the server has the whole run; raises UnavailableError if it does not answer."""
        with _errors(self):
            known = self._runs().get(identity)
        return known is not None and known.digest == digest

    def log(self, record: RunRecord) -> None:
        """Logs a run, or completes it; raises UnavailableError, and DataError if the server refuses it for good."""
        with _errors(self):
            run_id = self._run(record)
            self._write(run_id, record)
            self._runs()[record.identity].digest = record.digest

    def _open(self) -> MlflowClient:
        if self._client is None:
            for name, value in QUIET.items():
                os.environ.setdefault(name, value)
            if self._address.user is not None and self._address.password is not None:
                os.environ["MLFLOW_TRACKING_USERNAME"] = self._address.user
                os.environ["MLFLOW_TRACKING_PASSWORD"] = self._address.password.get_secret_value()
            from mlflow.tracking import MlflowClient

            self._client = MlflowClient(self._address.secret.get_secret_value())
        return self._client

    def _runs(self) -> dict[str, _Known]:
        if self._known is None:
            client = self._open()
            found = client.get_experiment_by_name(self._study)
            if found is not None and found.lifecycle_stage != "active":
                raise DataError(f"the experiment {self._study} is deleted on {self._address.shown}; restore it there")
            self._experiment = client.create_experiment(self._study) if found is None else found.experiment_id
            self._known = self._read_runs(client)
        return self._known

    def _read_runs(self, client: MlflowClient) -> dict[str, _Known]:
        runs, token = dict[str, _Known](), None
        while True:
            page = client.search_runs(
                [self._experiment], f"tags.`tailfill.study` = '{self._study}'", max_results=1000, page_token=token
            )
            for run in page:
                tags = run.data.tags
                if IDENTITY in tags:
                    runs[tags[IDENTITY]] = _Known(run.info.run_id, tags.get(DIGEST))
            token = page.token
            if not token:
                return runs

    def _run(self, record: RunRecord) -> str:
        """Returns the id of the record's run, which is created if the server has none."""
        known = self._runs().get(record.identity)
        if known is not None:
            return known.run_id
        tags = {"tailfill.experiment": record.experiment, **record.tags}
        if record.parent is not None:
            identity, name = record.parent
            search = RunRecord(identity, "", name, record.experiment, tags=_tags_of_parent(tags), began=record.began)
            tags["mlflow.parentRunId"] = self._run(search)
        return self._create(record, {**tags, IDENTITY: record.identity})

    def _create(self, record: RunRecord, tags: Mapping[str, str]) -> str:
        run = self._open().create_run(
            self._experiment,
            start_time=round(record.began * 1000) or None,
            tags={name: value[:LONGEST] for name, value in {"mlflow.source.name": "tailfill", **tags}.items()},
            run_name=record.name,
        )
        self._runs()[record.identity] = _Known(run.info.run_id, None)
        return str(run.info.run_id)

    def _write(self, run_id: str, record: RunRecord) -> None:
        from mlflow.entities import Metric, Param, RunTag

        client, when = self._open(), round(record.ended * 1000)
        metrics = [Metric(name, value, when, 0) for name, value in plainly_named(record.metrics).items()]
        for name, curve in plainly_named(record.curves).items():
            metrics += [Metric(name, value, when, step) for step, value in curve]
        parameters = [Param(name, str(value)[:LONGEST]) for name, value in plainly_named(record.parameters).items()]
        for start in range(0, len(metrics), MOST_METRICS):
            client.log_batch(run_id, metrics=metrics[start : start + MOST_METRICS])
        for start in range(0, len(parameters), MOST_PARAMETERS):
            client.log_batch(run_id, params=parameters[start : start + MOST_PARAMETERS])
        self._upload(client, run_id, record)
        tags = {**record.tags, **({"mlflow.note.content": record.text} if record.text else {}), DIGEST: record.digest}
        client.log_batch(run_id, tags=[RunTag(name, value[:LONGEST]) for name, value in tags.items()])
        client.set_terminated(run_id, "FAILED" if record.failed else "FINISHED", when or None)

    def _upload(self, client: MlflowClient, run_id: str, record: RunRecord) -> None:
        """Uploads files and images under their names."""
        files: dict[str, Path | bytes] = {**record.images, **record.files}
        if not files:
            return
        with TemporaryDirectory(prefix="mlflow-") as folder:
            for name, content in files.items():
                path = path_below(Path(folder), name, f"run {record.name}")
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, bytes):
                    path.write_bytes(content)
                else:
                    path.symlink_to(content.resolve())
            client.log_artifacts(run_id, folder)

    def unavailable(self, reason: str) -> UnavailableError:
        """Returns the error of a server that does not do what it is asked; what is known of its runs is read again."""
        self._known = None
        return UnavailableError(f"the server at {self._address.shown} is unavailable ({self.shown(reason)})")

    def shown(self, text: str) -> str:
        """Returns text of MLflow for a message: on one line, shortened and without our secrets."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "**********")
        return shortened(re.sub(r"//[^/@\s]*@", "//", text), 200)


class _errors:
    """Turns the errors of MLflow's client into ours."""

    def __init__(self, runs: MlflowRuns) -> None:
        self._runs = runs

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or not isinstance(error, Exception) or isinstance(error, DataError | UnavailableError):
            return
        if type(error).__module__.startswith("mlflow.") and getattr(error, "error_code", "") in REFUSED:
            raise DataError(f"the server refuses it ({self._runs.shown(str(error))})") from None
        if isinstance(error, OSError) or type(error).__module__.startswith("mlflow."):  # requests' errors are OSErrors
            raise self._runs.unavailable(str(error)) from None


def _tags_of_parent(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: tags[name] for name in ("tailfill.experiment", "tailfill.study", "tailfill.stage") if name in tags}


def _server(settings: Settings) -> Address:
    """Returns the server's address; raises ConfigError as `MlflowRuns` does."""
    assert settings.mlflow_uri is not None
    address = read_address(VARIABLE, settings.mlflow_uri)
    if find_spec("mlflow") is None:
        raise ConfigError(
            f"environment variable {VARIABLE}: needs the package mlflow-skinny, which is not installed; "
            "run `make venv`, or pip install 'CHECKOUT[trackers]' with the path of a checkout of tailfill; for control, `MLFLOW=1 make images`; or unset it"
        )
    return address
