"""Defines the errors that a person sees, and the exit codes that Kubernetes and scripts rely on.

TailfillError
├── InputError          exit 2   a retry cannot help: configuration, data, credentials
│   ├── ConfigError              a study file, `--set`, or the environment
│   ├── DataError                an image, a table, a label, an archive, a weights file
│   └── ArtifactError            a digest, a manifest, a bucket, credentials of the store
├── UnavailableError    exit 75  a service is unavailable or a read was cut short; a later run may succeed
└── Stopped             exit 143 a signal came before the manifest was committed

Anything else that reaches the top is a bug: exit 1, with a traceback.

A message names the thing, the value that was found, and the remedy, on one line.
"""

from __future__ import annotations

COMMITTED = 0
BUG = 1
INPUT = 2  # also click's own code for bad usage
UNAVAILABLE = 75  # EX_TEMPFAIL of sysexits.h
STOPPED = 143  # 128 + SIGTERM


class TailfillError(Exception):
    """Serves as the base of every error that is shown as one line, without a traceback."""

    exit_code = BUG


class InputError(TailfillError):
    """Says that a retry cannot help: configuration, data or credentials are wrong."""

    exit_code = INPUT


class ConfigError(InputError):
    """Says that a study file, a `--set` value or an environment variable is wrong."""


class DataError(InputError):
    """Says that an image, a label table, an archive or a weights file is wrong."""


class ArtifactError(InputError):
    """Says that bytes in the store differ from their digest, or that the store refuses permanently."""


class UnavailableError(TailfillError):
    """Says that a service did not answer after bounded retries; the same command may succeed later."""

    exit_code = UNAVAILABLE


class Stopped(TailfillError):
    """Says that SIGTERM or SIGINT ended the work before it was committed; checkpoints stay."""

    exit_code = STOPPED
