"""The environment, read in this file only.

A pod gets these variables from the chart, a process on one machine from `tailfill run`; they are the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from shared.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """What a process learns from its environment. Secrets mask themselves in `repr`."""

    store: str | None
    """`TAILFILL_STORE`: where artifacts live, `s3://bucket[/prefix]` or a folder."""
    s3_endpoint: str | None
    """`AWS_ENDPOINT_URL_S3`: an S3 server other than Amazon's."""
    s3_access_key: SecretStr | None
    """`AWS_ACCESS_KEY_ID`."""
    s3_secret_key: SecretStr | None
    """`AWS_SECRET_ACCESS_KEY`."""
    s3_session_token: SecretStr | None
    """`AWS_SESSION_TOKEN`: of keys that last some hours only."""
    s3_region: str
    """`AWS_REGION`; `us-east-1` where none is named, which every S3 server accepts."""
    database_url: SecretStr | None
    """`DATABASE_URL`: `postgresql://user:password@host:port/database` of the Optuna studies."""
    cache: Path
    """`TAILFILL_CACHE`: blobs by digest, shared by the processes of one node; safe to delete."""
    index: int
    """`JOB_COMPLETION_INDEX`: this pod's index in an Indexed Job, 0 elsewhere."""
    count: int
    """`TAILFILL_COUNT`: how many indexes the Job has, 1 elsewhere."""
    grace_seconds: float
    """`TAILFILL_GRACE_SECONDS`: seconds between SIGTERM and SIGKILL (Kubernetes' default is 30)."""
    device: Literal["cpu", "cuda"] | None
    """`TAILFILL_DEVICE`: what this process computes on, whatever `resources.device` says; a chart's Pod has it, by whether it holds a GPU."""
    hub_token: SecretStr | None
    """`HF_TOKEN`: for gated weights."""
    release: str | None
    """`TAILFILL_RELEASE`: name of the Helm release, in its control Pod; unset elsewhere."""
    namespace: str
    """`TAILFILL_NAMESPACE`: of the control Pod."""
    create_bucket: bool
    """`TAILFILL_CREATE_BUCKET`: whether control makes the store's bucket, as it must on the chart's own S3 server."""
    metrics_port: int
    """`TAILFILL_METRICS_PORT`: where a coordinator, or `tailfill run`, serves `/metrics` for Prometheus; 0 or unset serves none."""
    metrics_host: str
    """`TAILFILL_METRICS_HOST`: the address that it listens on; loopback where none is named, `0.0.0.0` in a pod."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Reads the environment; raises ConfigError where a number is not one."""

        def secret(name: str) -> SecretStr | None:
            value = environment.get(name)
            return SecretStr(value) if value else None

        default_cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tailfill"
        return cls(
            store=environment.get("TAILFILL_STORE") or None,
            s3_endpoint=environment.get("AWS_ENDPOINT_URL_S3") or None,
            s3_access_key=secret("AWS_ACCESS_KEY_ID"),
            s3_secret_key=secret("AWS_SECRET_ACCESS_KEY"),
            s3_session_token=secret("AWS_SESSION_TOKEN"),
            s3_region=environment.get("AWS_REGION") or "us-east-1",
            database_url=secret("DATABASE_URL"),
            cache=Path(environment.get("TAILFILL_CACHE") or default_cache),
            index=_whole_number(environment, "JOB_COMPLETION_INDEX", 0),
            count=_whole_number(environment, "TAILFILL_COUNT", 1),
            grace_seconds=float(_whole_number(environment, "TAILFILL_GRACE_SECONDS", 30)),
            device=_device(environment),
            hub_token=secret("HF_TOKEN"),
            release=environment.get("TAILFILL_RELEASE") or None,
            namespace=environment.get("TAILFILL_NAMESPACE") or "default",
            create_bucket=environment.get("TAILFILL_CREATE_BUCKET") == "1",
            metrics_port=_whole_number(environment, "TAILFILL_METRICS_PORT", 0),
            metrics_host=environment.get("TAILFILL_METRICS_HOST") or "127.0.0.1",
        )


def _device(environment: Mapping[str, str]) -> Literal["cpu", "cuda"] | None:
    match environment.get("TAILFILL_DEVICE") or None:
        case None | "cpu" | "cuda" as device:
            return device
        case other:
            raise ConfigError(
                f'environment variable TAILFILL_DEVICE: must be cpu or cuda, got "{other}"; unset it or mend it'
            )


def _whole_number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name) or str(default)
    if not text.isdecimal():
        raise ConfigError(f'environment variable {name}: must be a whole number, got "{text}"; unset it or mend it')
    return int(text)
