"""Reads the environment; no other module does.

A pod gets these variables from the chart, a process on one machine from `tailfill run`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from shared.errors import ConfigError
from shared.names import has_control_character


@dataclass(frozen=True)
class Authorities:
    """Names files of certificate authorities, in PEM."""

    file: Path
    """`TAILFILL_CA_FILE`: holds a user's own."""
    bundle: str | None
    """`REQUESTS_CA_BUNDLE`: replaces those of the machine, unless boto3 has others (`AWS_CA_BUNDLE`)."""


@dataclass(frozen=True)
class Settings:
    """Holds what a process learns from its environment. Secrets mask themselves in `repr`."""

    store: str | None
    """`TAILFILL_STORE`: says where artifacts are stored, `s3://bucket[/prefix]` or a folder."""
    s3_endpoint: str | None
    """`AWS_ENDPOINT_URL_S3`: names an S3 server other than Amazon's."""
    s3_access_key: SecretStr | None
    """`AWS_ACCESS_KEY_ID`: identifies the keys of the store."""
    s3_secret_key: SecretStr | None
    """`AWS_SECRET_ACCESS_KEY`: holds the secret of these keys."""
    s3_session_token: SecretStr | None
    """`AWS_SESSION_TOKEN`: belongs to temporary keys."""
    s3_region: str | None
    """`AWS_REGION` or `AWS_DEFAULT_REGION`: names the region; None leaves it to boto3's own files, and `us-east-1` without any."""
    s3_addressing: Literal["path", "virtual", "auto"] | None
    """`TAILFILL_S3_ADDRESSING`: says whether a request names the bucket in its path or in its host, or as boto3 chooses; None leaves it to
    boto3's own files, and `path` without any."""
    authorities: Authorities | None
    """Says which authorities are trusted for S3 beside those of the machine."""
    database_url: SecretStr | None
    """`DATABASE_URL`: gives the address `postgresql://user:password@host:port/database` of the Optuna studies."""
    cache: Path
    """`TAILFILL_CACHE`: names the folder of blobs by digest that the processes of one node share; safe to delete."""
    index: int
    """`JOB_COMPLETION_INDEX`: gives this pod's index in an Indexed Job; 0 if unset."""
    count: int
    """`TAILFILL_COUNT`: counts the indexes of the Job; 1 if unset."""
    memory: int | None
    """`TAILFILL_MEMORY`: gives the bytes of memory that this process may take; 0 or unset, which is None here, is what the machine or container has."""
    grace_seconds: float
    """`TAILFILL_GRACE_SECONDS`: gives the number of seconds between SIGTERM and SIGKILL (Kubernetes' default is 30)."""
    device: Literal["cpu", "cuda"] | None
    """`TAILFILL_DEVICE`: names the device of this process, and overrides `resources.device`. The chart sets it according to
    whether a Pod has a GPU."""
    hub_token: SecretStr | None
    """`HF_TOKEN`: gives access to gated weights."""
    release: str | None
    """`TAILFILL_RELEASE`: names the Helm release, by its `fullnameOverride` if it has one; set in its control Pod only."""
    study: str
    """`TAILFILL_STUDY`: holds the chart's digest of the release's study file and of `data.revision`, empty outside of a control Pod."""
    namespace: str
    """`TAILFILL_NAMESPACE`: names the namespace of the control Pod."""
    data_revision: int
    """`TAILFILL_DATA_REVISION`: counts how often a user has told control that the data or weights of an unchanged study have changed."""
    lost_pod_seconds: int
    """`TAILFILL_LOST_POD_SECONDS`: gives the seconds after which control replaces a Pod that should have ended but whose node does not answer."""
    create_bucket: bool
    """`TAILFILL_CREATE_BUCKET`: says whether control creates the store's bucket, which the chart's own S3 server needs."""
    metrics_port: int
    """`TAILFILL_METRICS_PORT`: sets the port at which a coordinator, or `tailfill run`, serves `/metrics` for Prometheus; 0 or unset serves none."""
    metrics_host: str
    """`TAILFILL_METRICS_HOST`: sets the address that it listens on; loopback if unset, `0.0.0.0` in a pod."""
    status_port: int
    """`TAILFILL_STATUS_PORT`: sets the port at which control tells its status on loopback; 0 or unset tells none."""
    mlflow_uri: SecretStr | None
    """`MLFLOW_TRACKING_URI`: gives the address of an MLflow server, which may contain a password."""
    mlflow_secrets: tuple[SecretStr, ...]
    """`MLFLOW_TRACKING_PASSWORD` and `MLFLOW_TRACKING_TOKEN`: are read by MLflow's client, and kept out of our messages."""
    tensorboard: str | None
    """`TAILFILL_TENSORBOARD`: names the folder of event files for TensorBoard."""
    webhook: SecretStr | None
    """`TAILFILL_WEBHOOK`: gives the address to which a study's end and stalls are posted. Its path is a secret too."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Returns the settings of an environment; raises ConfigError if a value is invalid."""

        def secret(name: str) -> SecretStr | None:
            value = environment.get(name, "").strip()
            if fault := _secret_fault(name, value):
                raise ConfigError(f"environment variable {name}: {fault} (its value is not shown)")
            return SecretStr(value) if value else None

        def text(name: str) -> str | None:
            return environment.get(name, "").strip() or None

        return cls(
            store=text("TAILFILL_STORE"),
            s3_endpoint=text("AWS_ENDPOINT_URL_S3"),
            s3_access_key=secret("AWS_ACCESS_KEY_ID"),
            s3_secret_key=secret("AWS_SECRET_ACCESS_KEY"),
            s3_session_token=secret("AWS_SESSION_TOKEN"),
            s3_region=text("AWS_REGION") or text("AWS_DEFAULT_REGION"),
            s3_addressing=_addressing(environment),
            authorities=_authorities(environment),
            database_url=secret("DATABASE_URL"),
            cache=_cache(environment),
            index=_whole_number(environment, "JOB_COMPLETION_INDEX", 0),
            count=_whole_number(environment, "TAILFILL_COUNT", 1, least=1),
            memory=_whole_number(environment, "TAILFILL_MEMORY", 0) or None,
            grace_seconds=float(_whole_number(environment, "TAILFILL_GRACE_SECONDS", 30)),
            device=_device(environment),
            hub_token=secret("HF_TOKEN"),
            release=environment.get("TAILFILL_RELEASE") or None,
            study=environment.get("TAILFILL_STUDY") or "",
            namespace=environment.get("TAILFILL_NAMESPACE") or "default",
            data_revision=_whole_number(environment, "TAILFILL_DATA_REVISION", 0),
            lost_pod_seconds=_whole_number(environment, "TAILFILL_LOST_POD_SECONDS", 600),
            create_bucket=environment.get("TAILFILL_CREATE_BUCKET") == "1",
            metrics_port=_whole_number(environment, "TAILFILL_METRICS_PORT", 0),
            metrics_host=environment.get("TAILFILL_METRICS_HOST") or "127.0.0.1",
            status_port=_whole_number(environment, "TAILFILL_STATUS_PORT", 0),
            mlflow_uri=secret("MLFLOW_TRACKING_URI"),
            mlflow_secrets=tuple(filter(None, map(secret, ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")))),
            tensorboard=text("TAILFILL_TENSORBOARD"),
            webhook=secret("TAILFILL_WEBHOOK"),
        )


def _secret_fault(name: str, value: str) -> str | None:
    """Returns why a secret cannot be one, as the end of a sentence, or None. White space around it is gone."""
    if has_control_character(value):
        return "has a line break or another control character inside; remove it"
    if name == "DATABASE_URL":  # has a form of its own, which `shared.search.database_url` checks
        return None
    if value[:1] in ("'", '"'):
        return "has quotes around it; remove them"
    if not value.isascii() or " " in value:
        return "has a space or a letter outside ASCII inside; copy it again"
    return None


def _authorities(environment: Mapping[str, str]) -> Authorities | None:
    named = environment.get("TAILFILL_CA_FILE", "").strip()
    if has_control_character(named):
        raise ConfigError(
            "environment variable TAILFILL_CA_FILE: must name a file of certificates in PEM, got several lines (they are not shown); "
            "write them to a file and name that"
        )
    return Authorities(Path(named), environment.get("REQUESTS_CA_BUNDLE") or None) if named else None


def _cache(environment: Mapping[str, str]) -> Path:
    if named := environment.get("TAILFILL_CACHE"):
        return Path(named)
    try:
        return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tailfill"
    except RuntimeError:  # a user id without a name and without HOME
        raise ConfigError(
            "environment variable TAILFILL_CACHE: is not set, and this user has no home folder; set it to a folder for downloads, or set HOME"
        ) from None


def _addressing(environment: Mapping[str, str]) -> Literal["path", "virtual", "auto"] | None:
    match environment.get("TAILFILL_S3_ADDRESSING") or None:
        case None | "path" | "virtual" | "auto" as addressing:
            return addressing
        case other:
            raise ConfigError(
                f'environment variable TAILFILL_S3_ADDRESSING: must be path, virtual or auto, got "{other}"; unset it or fix it'
            )


def _device(environment: Mapping[str, str]) -> Literal["cpu", "cuda"] | None:
    match environment.get("TAILFILL_DEVICE") or None:
        case None | "cpu" | "cuda" as device:
            return device
        case other:
            raise ConfigError(
                f'environment variable TAILFILL_DEVICE: must be cpu or cuda, got "{other}"; unset it or fix it'
            )


def _whole_number(environment: Mapping[str, str], name: str, default: int, least: int = 0) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal():
        raise ConfigError(f'environment variable {name}: must be a whole number, got "{text}"; unset it or fix it')
    if int(text) < least:
        raise ConfigError(f"environment variable {name}: must be at least {least}, got {text}; unset it or fix it")
    return int(text)
